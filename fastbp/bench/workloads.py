"""What is trained when whole training steps are timed: networks, data, initial weights, batches.

Everything here comes from NumPy and one seed, so that every implementation, each in a process of
its own, trains the same network on the same batches.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fastbp
from fastbp.dataset import find_mnist

Array = np.ndarray[Any, np.dtype[Any]]

SEED = 1

# Share of MNIST's pixels that are not zero; its stand-in has as many.
MNIST_DENSITY = 0.19

# Added to every pixel of the data without zeros.
NOT_ZERO = 0.01

# The loss that the implementations must agree on is taken over so many examples.
LOSS_EXAMPLES = 1000

# Batches drawn beforehand for those who do not draw their own: at most so many, used in a circle.
MAX_BATCHES = 600

# The book's decay rate of momentum, and those of Adam with what guards its division.
MOMENTUM = 0.9
BETA1, BETA2, EPS = 0.9, 0.999, 1e-7


@dataclass(frozen=True)
class Workload:
    """A network and how it is trained.

    Attributes
    ----------
    name : str
    sizes : tuple of int
        Widths from the inputs to the classes; ReLU between.
    batch : int
    data : str
        'mnist'; 'mnist without zeros', a constant added to its pixels; 'digits'; 'random', images
        without zeros; 'random sparse', with as many as MNIST.
    rows : int
        Examples in the data, which is cut or repeated to this length.
    optimizer : {'sgd', 'momentum', 'adam'}
    lr : float
    decay : float
        Weight decay, lambda of ``lambda / 2 * sum(W**2)``.
    weight_std : float
        Standard deviation of the initial weights; 0 for He's ``sqrt(2 / inputs)``.
    dtype : {'float32', 'float64'}
        Of data and parameters.  The book's code computes in float64 whatever it says.
    plain : str
        Name of the workload that differs by the optimizer alone, to be timed beside.
    whole : int
        A whole training of so many steps, accuracies included, instead of steps alone.
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    data: str = "mnist"
    rows: int = 60_000
    optimizer: str = "sgd"
    lr: float = 0.1
    decay: float = 0.0
    weight_std: float = 0.0
    dtype: str = "float32"
    plain: str = ""
    whole: int = 0

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return -(-self.rows // self.batch)

    @property
    def megaflops(self) -> float:
        """Multiplications and additions of the matrix products of a step, in millions.

        Forward, the weights' gradient, and the input's gradient in all layers but the first.
        """
        products = [D * H for D, H in pairwise(self.sizes)]
        return 2e-6 * self.batch * (3 * sum(products) - products[0])

    @property
    def title(self) -> str:
        """Everything about it in a line."""
        decay = f", weight decay {self.decay:g}" if self.decay else ""
        return (
            f"{'-'.join(map(str, self.sizes))}, batch {self.batch}, {self.optimizer} "
            f"lr {self.lr:g}{decay}, {self.dtype}, {self.rows:,} rows of {data_name(self.data)}"
        )

    def to_json(self) -> str:
        """Return the workload in one line of text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        """Return the workload that a line of :meth:`to_json` describes."""
        fields = json.loads(text)
        return cls(**{**fields, "sizes": tuple(fields["sizes"])})


BOOK = Workload("book", (784, 50, 10), 100, weight_std=0.01)
# The data of the digits are repeated: an epoch of 1437 examples would be 29 steps, shorter than
# the report that `fit` makes after it.
DIGITS = Workload("digits", (64, 50, 10), 50, data="digits", rows=16 * 1437)


def _variants(base: Workload) -> list[Workload]:
    """Return the workload with other optimizers."""
    return [
        replace(base, name=f"{base.name}-momentum", optimizer="momentum", lr=0.01, plain=base.name),
        replace(base, name=f"{base.name}-adam", optimizer="adam", lr=0.001, plain=base.name),
        replace(base, name=f"{base.name}-decay", decay=1e-4, plain=base.name),
    ]


WORKLOADS = [
    BOOK,
    replace(BOOK, name="book-dense", data="mnist without zeros"),
    replace(BOOK, name="book-float64", dtype="float64"),
    replace(BOOK, name="book-dense-float64", data="mnist without zeros", dtype="float64"),
    Workload("deep", (784, 512, 256, 10), 256, rows=50 * 256),
    DIGITS,
    *_variants(DIGITS),
    *_variants(BOOK),
    replace(BOOK, name="whole", whole=10_000),
]


def data_name(data: str) -> str:
    """Return what the data really are: MNIST has a stand-in where its files are not found."""
    if data.startswith("mnist") and find_mnist() is None:
        sparse = data == "mnist"
        return f"SYNTHETIC images{', 19 % of them not zero' if sparse else ' without zeros'}"
    return data


def load(workload: Workload) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the data to train on and to test with: rows of the workload's type, and labels."""
    if workload.data == "digits":
        train, test = fastbp.load_digits()
    elif workload.data.startswith("mnist") and find_mnist() is not None:
        train, test = fastbp.load_mnist()
    else:
        sparse = workload.data in ("mnist", "random sparse")
        sizes = workload.sizes[0], workload.sizes[-1]
        train = _images(sizes, workload.rows, sparse)
        test = _images(sizes, max(1, workload.rows // 6), sparse)
    add = NOT_ZERO if workload.data == "mnist without zeros" else 0.0
    return _prepared(train, workload, workload.rows, add), _prepared(
        test, workload, len(test[0]), add
    )


def _prepared(pair: Any, workload: Workload, rows: int, add: float) -> tuple[Array, Array]:
    """Return data of so many rows, in the workload's type."""
    x, t = pair
    if len(x) != rows:
        numbers = np.arange(rows) % len(x)
        x, t = x[numbers], t[numbers]
    x = np.ascontiguousarray(x, workload.dtype)
    if add:
        x = x + x.dtype.type(add)
    return x, np.asarray(t, np.int64)


def calm_blas() -> Any:
    """Keep NumPy's BLAS to one thread within a block, in what is done between two turns.

    Others would go on looking for work for a tenth of a second, on a core that the next turn needs.
    """
    return threadpool_limits(1, "blas")


@functools.lru_cache(maxsize=4)  # every implementation of a case asks for the same
def _images(sizes: tuple[int, int], rows: int, sparse: bool) -> tuple[Array, Array]:
    """Return random images, and labels that can be learned; nobody writes to them."""
    D, C = sizes
    rng = np.random.default_rng(SEED)
    teacher = rng.standard_normal((D, C), np.float32)
    x = rng.random((rows, D), np.float32) + np.float32(NOT_ZERO)
    if sparse:
        x *= rng.random((rows, D), np.float32) < MNIST_DENSITY
    with calm_blas():
        scores = x @ teacher
    return x, np.argmax(scores - scores.mean(axis=0), axis=1)


def weights(workload: Workload) -> list[tuple[Array, Array]]:
    """Return the initial weights and biases of every layer, new arrays."""
    rng = np.random.default_rng(SEED)
    pairs = []
    for D, H in pairwise(workload.sizes):
        std = workload.weight_std or (2 / D) ** 0.5
        W = (std * rng.standard_normal((D, H))).astype(workload.dtype)
        pairs.append((W, np.zeros(H, workload.dtype)))
    return pairs


def batches(workload: Workload, steps: int) -> Array:
    """Return the row numbers of so many mini-batches, (steps, batch), as the book draws them."""
    np.random.seed(SEED)  # noqa: NPY002 - the book's generator
    draws = [np.random.choice(workload.rows, workload.batch) for _ in range(steps)]  # noqa: NPY002
    return np.array(draws)


def loss(parameters: Sequence[tuple[Array, Array]], x: Array, t: Array) -> float:
    """Return the mean cross-entropy over the first examples, computed here, in float64."""
    h, t = x[:LOSS_EXAMPLES].astype(np.float64), t[:LOSS_EXAMPLES]
    with calm_blas():
        for i, (W, b) in enumerate(parameters):
            h = (np.maximum(h, 0) if i else h) @ W.astype(np.float64) + b
    h = h - h.max(axis=1, keepdims=True)
    log_y = h[np.arange(len(t)), t] - np.log(np.exp(h).sum(axis=1))
    return float(-log_y.mean())
