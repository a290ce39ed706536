"""The table of cases: operation x shape x type x threads x implementation -> a call.

Everything that times something reads this table: ``fastbp bench`` and its gate, asv,
pytest-benchmark; and so does the test that compares the results of all implementations of a case.

Floating-point operations are those of the definition: a multiplication and an addition are two, an
exponential or a logarithm is one.  Bytes are each input read once and each result written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import fastbp
from fastbp import reference
from fastbp.dataset import find_mnist

from . import networks, processes, with_jax, with_kernels, with_numpy, with_tinygrad, with_torch
from .machine import PACKAGES, Unavailable, missing
from .with_numpy import Call, layer_data
from .workloads import Workload

IMPLEMENTATIONS = tuple(PACKAGES)

DTYPES = ("float32", "float64")

# (N, H) for what works on each element, from one row to a million numbers.
SHAPES = [(1, 50), (37, 13), (100, 50), (1000, 50), (1000, 1000)]
# (N, C) logits.
LOGITS = [(1, 10), (37, 13), (100, 10), (1000, 50), (4096, 1000)]
ONE_HOT = [(100, 10), (1000, 50)]
# (N, D, H): rows, inputs, outputs.  With two inputs the product is small beside the bias.
PRODUCTS = [
    (1, 784, 50), (10, 784, 50), (100, 784, 50), (1000, 784, 50),
    (37, 123, 45), (100, 784, 512), (256, 512, 256), (1000, 2, 500),
]  # fmt: skip
RULES = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")
# The rules that torch writes as the book does.
TORCH_RULES = ("SGD", "Momentum", "AdaGrad", "RMSprop")

# Widths of networks, from the inputs to the classes.
BOOK, SMALL, TALL = (784, 50, 10), (64, 50, 10), (784, 512, 256, 10)
WIDE, DEEP, ODD = (784, 2048, 10), (784, *(100,) * 6, 10), (123, 45, 7)

# Floating-point operations and numbers read and written, for each element.
ELEMENT_WORK = {
    ("relu", "forward"): (1, 2), ("relu", "backward"): (1, 2),
    ("sigmoid", "forward"): (4, 2), ("sigmoid", "backward"): (3, 3),
    ("softmax loss", "forward"): (5, 2), ("softmax loss", "backward"): (2, 2),
    ("softmax loss, one-hot", "forward"): (5, 3), ("softmax loss, one-hot", "backward"): (2, 3),
}  # fmt: skip
RULE_WORK = {
    "SGD": (2, 3), "Momentum": (4, 5), "Nesterov": (5, 5),
    "AdaGrad": (6, 5), "RMSprop": (8, 5), "Adam": (12, 7),
}  # fmt: skip

# The same of kernels that are no layer by themselves.
KERNEL_WORK = {
    "softmax_forward": (5, 2), "bias_forward": (1, 2), "bias_backward": (1, 1),
    "first_nonfinite": (2, 1),
}  # fmt: skip

# How far results may be from the reference's, in units of its largest number; trainings add up
# their rounding errors, and differences of losses have errors of their own.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
TRAINING_TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
MANY_STEPS_TOLERANCE = 5
NUMERICAL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """One operation on one shape and type with so many threads, in several implementations.

    Attributes
    ----------
    operation : str
    shape : tuple of int
        Rows first; for networks the rows and then the widths of the layers.
    dtype : {'float32', 'float64'}
    threads : int
    makers : dict of implementation to callable
        Each builds a call without arguments, with data of its own from the same seed; what the
        call returns is what the implementations must agree on.
    flops, bytes : float
        Of one call; 0 where they say nothing.
    tolerance : float
    unit : {'s', 'B'}
        What is compared: seconds a call, or the bytes of a :class:`fastbp.bench.processes.Peak`.
    long : bool
        Whether a call of some implementation takes seconds: left out unless asked for.
    """

    operation: str
    shape: tuple[int, ...]
    dtype: str
    threads: int
    makers: Mapping[str, Callable[[], Call]] = field(compare=False, repr=False)
    flops: float
    bytes: float
    tolerance: float
    unit: str = "s"
    long: bool = False

    @property
    def name(self) -> str:
        """Operation, shape, type and threads in a line."""
        shape = "-".join(map(str, self.shape[1:])) if len(self.shape) > 3 else ""
        shape = f"{self.shape[0]} x {shape}" if shape else " x ".join(map(str, self.shape))
        words = [self.operation, shape, self.dtype, f"{self.threads} thr"]
        return ", ".join(word for word in words if word)

    @property
    def group(self) -> str:
        """The name without the threads."""
        return self.name.rpartition(", ")[0]

    @property
    def is_process(self) -> bool:
        """Whether each call is a process of its own."""
        return self.operation in PROCESS_OPERATIONS

    def build(self, implementation: str) -> Call:
        """Return a new call, and set the threads of NumPy and fastbp.

        Raises
        ------
        KeyError
            When this implementation has no such operation.
        Unavailable
            When it is not installed, or cannot have so many threads any more.
        """
        make = self.makers[implementation]
        lacking = missing(implementation)
        if lacking:
            raise Unavailable(lacking)
        if not self.is_process:
            fastbp.set_num_threads(self.threads)
        return make()


# --- single layers -------------------------------------------------------------------------------


def layer_cases(dtype: str, threads: int) -> Iterator[Case]:
    """Yield forward and backward of every layer, softmax, and the optimizers' updates."""
    size = np.dtype(dtype).itemsize
    shapes: dict[str, list[Any]] = {
        "relu": SHAPES,
        "sigmoid": SHAPES,
        "softmax loss": LOGITS,
        "softmax loss, one-hot": ONE_HOT,
        "affine": PRODUCTS,
    }
    for layer, layer_shapes in shapes.items():
        for shape in layer_shapes:
            work = [layer_work(layer, direction, shape) for direction in ("forward", "backward")]
            work.append((work[0][0] + work[1][0], work[0][1] + work[1][1]))
            for direction, (flops, numbers) in zip(
                ("forward", "backward", "forward + backward"), work, strict=True
            ):
                makers = layer_makers(layer, direction, shape, dtype, threads)
                operation = f"{layer} {direction}"
                yield _case(operation, shape, dtype, threads, makers, flops, size * numbers)
    for shape in LOGITS:
        count = shape[0] * shape[1]
        makers = softmax_makers(shape, dtype, threads)
        yield _case("softmax", shape, dtype, threads, makers, 5 * count, 2 * size * count)
    for rule in RULES:
        shape = (784, 50)
        flops, numbers = (784 * 50 * each for each in RULE_WORK[rule])
        makers = update_makers(rule, shape, dtype, threads)
        yield _case(f"update {rule}", shape, dtype, threads, makers, flops, size * numbers)


def layer_work(layer: str, direction: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the floating-point operations, and the numbers read and written."""
    N, H = shape[0], shape[-1]
    if layer != "affine":
        flops, numbers = ELEMENT_WORK[layer, direction]
        return flops * N * H, numbers * N * H
    D = shape[1]
    if direction == "forward":
        return 2 * N * D * H + N * H, N * D + D * H + H + N * H
    return 4 * N * D * H + N * H, 2 * N * D + 2 * D * H + H + N * H


def layer_makers(
    layer: str, direction: str, shape: tuple[int, ...], dtype: str, threads: int
) -> dict[str, Callable[[], Call]]:
    """Return what builds the calls of a layer."""

    def books(module: Any) -> Callable[[], Call]:
        return lambda: with_numpy.layer(module, layer, direction, layer_data(shape, dtype))

    def others(function: Callable[..., Call], *arguments: Any) -> Callable[[], Call]:
        return lambda: function(layer, direction, layer_data(shape, dtype), *arguments)

    return {
        "reference": books(reference),
        "fastbp": books(fastbp),
        "torch": others(with_torch.layer, threads, False),
        "torch.compile": others(with_torch.layer, threads, True),
        "jax": others(with_jax.layer, threads),
        "tinygrad": others(with_tinygrad.layer),
    }


def softmax_makers(
    shape: tuple[int, ...], dtype: str, threads: int
) -> dict[str, Callable[[], Call]]:
    """Return what builds the calls of softmax."""
    return {
        "reference": lambda: with_numpy.softmax(reference, layer_data(shape, dtype)),
        "fastbp": lambda: with_numpy.softmax(fastbp, layer_data(shape, dtype)),
        "torch": lambda: with_torch.softmax(layer_data(shape, dtype), threads, compiled=False),
        "torch.compile": lambda: with_torch.softmax(
            layer_data(shape, dtype), threads, compiled=True
        ),
        "jax": lambda: with_jax.softmax(layer_data(shape, dtype), threads),
        "tinygrad": lambda: with_tinygrad.softmax(layer_data(shape, dtype)),
    }


def update_makers(
    rule: str, shape: tuple[int, ...], dtype: str, threads: int
) -> dict[str, Callable[[], Call]]:
    """Return what builds the calls of an optimizer's update."""
    makers: dict[str, Callable[[], Call]] = {
        "reference": lambda: with_numpy.update(reference, rule, layer_data(shape, dtype)),
        "fastbp": lambda: with_numpy.update(fastbp, rule, layer_data(shape, dtype)),
    }
    if rule in TORCH_RULES:
        makers["torch"] = lambda: with_torch.update(rule, layer_data(shape, dtype), threads)
    return makers


def kernel_shape(name: str) -> tuple[int, int]:
    """Return the shape that a kernel is timed on."""
    # NumPy's ReLU branches on every element.  Of 50,000 the processor learns a part by heart,
    # another one in each process, and takes 90 to 210 us; of twice as many it learns none.
    if "update" in name:
        return (784, 50)
    return (2000, 50) if name.startswith("relu") else (1000, 50)


def kernel_cases(dtype: str) -> Iterator[Case]:
    """Yield every kernel that Python calls for a layer or an update; they run on one thread."""
    size = np.dtype(dtype).itemsize
    for name, (_, meaning) in with_kernels.KERNELS.items():
        if len(meaning) == 2:
            each = ELEMENT_WORK[meaning[0], meaning[1]]
        else:
            each = RULE_WORK[meaning[0]] if meaning else KERNEL_WORK[name]
        shape = kernel_shape(name)
        flops, numbers = (shape[0] * shape[1] * value for value in each)
        makers = {
            "reference": partial(_on_layer_data, with_kernels.numpys, name, shape, dtype),
            "fastbp": partial(_on_layer_data, with_kernels.ours, name, shape, dtype),
        }
        yield _case(f"kernel {name}", shape, dtype, 1, makers, flops, size * numbers)


def _on_layer_data(
    make: Callable[..., Call], name: str, shape: tuple[int, ...], dtype: str
) -> Call:
    return make(name, layer_data(shape, dtype))


# --- networks ------------------------------------------------------------------------------------


def network_cases(dtype: str, threads: int) -> Iterator[Case]:
    """Yield predictions, gradients, steps and epochs."""
    size = np.dtype(dtype).itemsize
    for N, sizes in (
        (1, BOOK), (100, BOOK), (10_000, BOOK), (1000, TALL), (37, ODD), (100, WIDE), (100, DEEP)
    ):  # fmt: skip
        flops, numbers = 2.0 * N * weights_of(sizes), 1.0 * N * sizes[0] + params_of(sizes)
        yield _network("predict", networks.predict, N, sizes, dtype, threads, flops, size * numbers)
    for N, sizes in (
        (1, BOOK), (3, BOOK), (10, BOOK), (100, BOOK), (1000, BOOK),
        (1, SMALL), (3, SMALL), (100, SMALL),
        (256, TALL), (37, ODD), (100, WIDE), (100, DEEP),
    ):  # fmt: skip
        flops, numbers = gradient_work(N, sizes)
        # The baseline of the numerical gradient takes two passes for each parameter.
        also = ("numerical",) if sizes == SMALL and dtype == "float64" else ()
        names = (*networks.WITH_GRADIENT, *also)
        case = _network(
            "gradient", networks.gradient, N, sizes, dtype, threads, flops, size * numbers, names
        )
        yield case
        if sizes == BOOK and N in (1, 3, 100) and dtype == "float64":
            names = ("reference", "fastbp", "numerical")
            case = _network(
                "gradient beside the numerical", networks.gradient, N, sizes, dtype, threads,
                flops, size * numbers, names,
            )  # fmt: skip
            yield replace(case, long=True)
    for N, sizes in ((50, SMALL), (100, BOOK), (256, TALL)):
        flops, numbers = gradient_work(N, sizes)
        flops, numbers = flops + 2 * params_of(sizes), numbers + 2 * params_of(sizes)
        yield _network(
            "training step", networks.step, N, sizes, dtype, threads, flops, size * numbers
        )
    if dtype == "float64":
        for N, sizes in ((1, SMALL), (3, SMALL), (100, SMALL)):
            flops = 2 * params_of(sizes) * 2 * N * weights_of(sizes)
            yield _network(
                "numerical gradient", networks.numerical_gradient, N, sizes, dtype, threads,
                flops, 0, ("reference", "fastbp"),
            )  # fmt: skip


def training_cases(dtype: str, threads: int) -> Iterator[Case]:
    """Yield steps through ``fit`` and through everybody's fastest loop, from the first weights on.

    Ten or twenty batches make an epoch, so that what ``fit`` does once for its data weighs little;
    where the operation is a single epoch, it is counted in full.
    """
    size = np.dtype(dtype).itemsize
    small = Workload("", SMALL, 50, "random sparse", 10 * 50, dtype=dtype)
    book = Workload("", BOOK, 100, "random sparse", 10 * 100, dtype=dtype)
    tall = Workload("", TALL, 256, "random sparse", 5 * 256, dtype=dtype)
    adam = replace(small, optimizer="adam", lr=0.001)
    # Bright images take smaller steps, or the losses jump about and rounding errors with them.
    dense = replace(book, data="random", lr=0.01)
    many = 20 * 100
    for operation, workload, steps in (
        ("60 steps", small, 60),
        ("60 steps, Momentum", replace(small, optimizer="momentum", lr=0.01), 60),
        ("60 steps, Adam", adam, 60),
        ("60 steps, weight decay", replace(small, decay=1e-4), 60),
        ("60 steps", book, 60),
        ("60 steps, no zeros", dense, 60),
        ("10 steps", tall, 10),
        ("600 steps", replace(small, rows=many), 600),
        ("600 steps, Adam", replace(adam, rows=many), 600),
        ("300 steps", replace(book, rows=many), 300),
        ("300 steps, no zeros", replace(dense, rows=many), 300),
        ("600 steps", replace(book, rows=many), 600),
        ("600 steps, no zeros", replace(dense, rows=many), 600),
        ("one epoch of 6,000 images", replace(book, rows=6000), 60),
    ):
        if steps >= 300 and dtype == "float64":
            continue
        numbers = steps * (workload.batch * workload.sizes[0] + 2 * params_of(workload.sizes))
        flops = steps * (1e6 * workload.megaflops + 2 * params_of(workload.sizes))
        # PyTorch's Adam has its epsilon in another place, and other results.
        names = [n for n in networks.LOOPS if workload.optimizer != "adam" or "torch" not in n]
        makers = {name: partial(networks.steps, name, workload, threads, steps) for name in names}
        yield _case(
            operation, (workload.batch, *workload.sizes), dtype, threads, makers, flops,
            size * numbers, TRAINING_TOLERANCE[dtype] * (MANY_STEPS_TOLERANCE if steps > 60 else 1),
        )  # fmt: skip


def whole_cases(threads: int) -> Iterator[Case]:
    """Yield whole trainings: of the digits, and of MNIST where its files are here."""
    workloads = [
        Workload("", SMALL, 50, "digits", 1437),
        Workload("", BOOK, 100, "mnist", 60_000),
    ]
    for workload in workloads if find_mnist() is not None else workloads[:1]:
        data = workload.data.replace("mnist", "MNIST")
        case = _case(
            f"training to {100 * networks.GOALS[workload.data]:.0f} %, {data}",
            (workload.batch, *workload.sizes), "float32", threads,
            _peer_makers(networks.whole, networks.LOOPS, workload, threads), 0, 0, 0.0,
        )  # fmt: skip
        yield replace(case, long=workload.data == "mnist")


def weights_of(sizes: Sequence[int]) -> int:
    """Return how many weights a network has."""
    return sum(D * H for D, H in pairwise(sizes))


def params_of(sizes: Sequence[int]) -> int:
    """Return how many weights and biases a network has."""
    return weights_of(sizes) + sum(sizes[1:])


def gradient_work(N: int, sizes: tuple[int, ...]) -> tuple[float, float]:
    """Return the operations of a gradient, none for the inputs', and the numbers it moves."""
    flops = 1e6 * Workload("", sizes, N).megaflops
    return flops, N * sizes[0] + 2 * params_of(sizes)


def _network(
    operation: str, make: Callable[..., Call], N: int, sizes: tuple[int, ...], dtype: str,
    threads: int, flops: float, bytes_: float, names: Sequence[str] = tuple(networks.PEERS),
) -> Case:  # fmt: skip
    """Return a case of one batch, with as many zeros as images of digits have."""
    workload = Workload("", sizes, N, "random sparse", N, dtype=dtype)
    makers = _peer_makers(make, names, workload, threads)
    tolerance = NUMERICAL_TOLERANCE if operation == "numerical gradient" else None
    return _case(operation, (N, *sizes), dtype, threads, makers, flops, bytes_, tolerance)


def _peer_makers(
    make: Callable[..., Call], names: Any, workload: Workload, threads: int
) -> dict[str, Callable[[], Call]]:
    return {name: partial(make, name, workload, threads) for name in names}


# --- processes -----------------------------------------------------------------------------------

# The implementations a first step is taken with; without anything cached, those that cache.
STARTERS = ("reference", "fastbp", "torch", "torch.compile", "jax", "sklearn")
PROCESS_OPERATIONS = (
    "import", "first step, nothing cached", "first step", "peak memory of an epoch",
)  # fmt: skip


def process_cases(threads: int) -> Iterator[Case]:
    """Yield what a user waits for before anything happens, and the memory of an epoch."""
    if threads == 1:
        names = ("reference", "fastbp", "torch", "jax", "sklearn", "tinygrad")
        makers = {name: partial(processes.import_call, name) for name in names}
        yield _case("import", (), "", 1, makers, 0, 0, 0.0)
    for operation, cached in (("first step", True), ("first step, nothing cached", False)):
        makers = {
            name: partial(processes.first_step_call, name, threads, cached) for name in STARTERS
        }
        shape = (processes.STEP.batch, *processes.STEP.sizes)
        case = _case(operation, shape, "float32", threads, makers, 0, 0)
        yield replace(case, long=not cached)
    makers = {name: partial(processes.memory_call, name, threads) for name in STARTERS}
    shape = (processes.EPOCH.batch, *processes.EPOCH.sizes)
    case = _case(
        "peak memory of an epoch", shape, "float32", threads, makers, 0, 0,
        TRAINING_TOLERANCE["float32"],
    )  # fmt: skip
    yield replace(case, unit="B")


def _case(
    operation: str, shape: tuple[int, ...], dtype: str, threads: int,
    makers: Mapping[str, Callable[[], Call]], flops: float, bytes_: float,
    tolerance: float | None = None,
) -> Case:  # fmt: skip
    if tolerance is None:
        tolerance = TOLERANCE[dtype]
    return Case(operation, shape, dtype, threads, makers, flops, bytes_, tolerance)


# --- the table -----------------------------------------------------------------------------------


def all_cases(threads: Sequence[int] = (1, 2)) -> list[Case]:
    """Return the whole table, for each of these numbers of threads."""
    found: list[Case] = []
    for n in threads:
        for dtype in DTYPES:
            if n == 1:
                found += kernel_cases(dtype)
            found += [*layer_cases(dtype, n), *network_cases(dtype, n), *training_cases(dtype, n)]
        found += [*whole_cases(n), *process_cases(n)]
    return found


# What `fastbp bench --quick` and the README show: the operation, its shape, and its types.  Arrays
# of 100 rows stay in a core's own caches, and NumPy's ReLU of them is the same in any process.
QUICK: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
    ("relu forward + backward", (100, 50), DTYPES),
    ("sigmoid forward + backward", (100, 50), DTYPES),
    ("softmax loss forward + backward", (1000, 50), DTYPES),
    ("softmax loss, one-hot forward + backward", (1000, 50), ("float32",)),
    ("affine forward + backward", (1, 784, 50), ("float32",)),
    ("affine forward + backward", (1000, 784, 50), DTYPES),
    ("update Adam", (784, 50), ("float32",)),
    ("predict", (1, *BOOK), ("float32",)),
    ("predict", (10_000, *BOOK), ("float32",)),
    ("gradient", (1, *SMALL), ("float64",)),
    ("gradient", (3, *SMALL), ("float64",)),
    ("gradient", (100, *SMALL), ("float64",)),
    ("gradient", (100, *BOOK), DTYPES),
    ("training step", (100, *BOOK), ("float32",)),
    ("600 steps", (50, *SMALL), ("float32",)),
    ("300 steps", (100, *BOOK), ("float32",)),
    ("300 steps, no zeros", (100, *BOOK), ("float32",)),
    ("10 steps", (256, *TALL), ("float32",)),
]


def quick_cases(threads: Sequence[int] = (1,)) -> list[Case]:
    """Return the rows of the table that tell most, for these numbers of threads, in that order."""
    wanted = [(operation, shape, dtype) for operation, shape, types in QUICK for dtype in types]
    found = {(c.operation, c.shape, c.dtype, c.threads): c for c in all_cases(threads)}
    return [
        found[operation, shape, dtype, n] for n in threads for operation, shape, dtype in wanted
    ]
