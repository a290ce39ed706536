"""What all networks are: a row of layers from the input to the logits, and a loss behind them.

``params`` is a plain dict of arrays, ``W1``, ``b1``, ``W2``, ...; it is the truth: changing an
array in place, or putting another in its place, changes the network.
"""

from __future__ import annotations

import copy
import itertools
import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from . import gradient as _gradient
from ._arrays import (
    F32,
    F64,
    FLOATS,
    Array,
    as_parameter,
    as_plain,
    as_targets,
    float_type,
    nonnegative,
    positive_int,
    require_numbers,
)
from ._differences import network_differences
from .engine import CONSECUTIVE_ROWS, Engine
from .examples import as_batches
from .layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

__all__ = ["ACTIVATIONS", "Network"]

ACTIVATIONS: dict[str, type[Relu] | type[Sigmoid]] = {"relu": Relu, "sigmoid": Sigmoid}

# Rows evaluated at a time: small enough that a float64 copy of float32 images stays at 25 MB.
EVALUATION_ROWS = 16 * CONSECUTIVE_ROWS

# Rows from which the compiled loop is faster than the layers: measured on 784-50-10.
GRADIENT_ROWS, PREDICT_ROWS = 16, 256

# The most memory of the compiled loop that a network keeps for its next call.
KEPT_BYTES = 32 * 1024 * 1024

# More than this no address space holds.
MOST_PARAMETERS = sys.maxsize // 8

NO_TARGETS = np.empty(0, np.int64)

# What the compiled loop computes: of a class that has its own, layer by layer instead.
STANDARD_METHODS = ("predict", "loss", "gradient", "loss_and_gradient", "evaluate", "decay")


class Network:
    """Affine layers with an activation between them, then softmax and cross-entropy.

    :class:`TwoLayerNet` and :class:`MultiLayerNet` are this with the book's arguments.

    Parameters
    ----------
    sizes : sequence of int
        Widths from the input to the classes: ``(784, 50, 10)``.
    weight_stds : sequence of float
        For each affine layer the standard deviation of its normally distributed weights.
    activation : {'relu', 'sigmoid'}
    weight_decay_lambda : float, default 0
        Adds ``lambda / 2 * sum(W**2)`` over all weights to the loss.
    dtype : float64 or float32
        Of the parameters; everything is computed in it.
    seed : int, optional
        For NumPy's ``default_rng``.  Without it the weights come from NumPy's global generator, so
        that ``np.random.seed(0)`` gives the book's weights.

    Attributes
    ----------
    params : dict of arrays
        ``W1`` (D, H), ``b1`` (H,), ``W2``, ...
    layers : dict of layers
        ``Affine1``, ``Relu1``, ``Affine2``, ..., in the order of the computation.
    last_layer, lastLayer : SoftmaxWithLoss
        The loss, under both of the book's names.

    Raises
    ------
    TypeError, ValueError
        For arguments that are none of these; the message names the argument.
    MemoryError
        When there is not enough for the parameters.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weight_stds: Sequence[float],
        *,
        activation: str = "relu",
        weight_decay_lambda: float = 0.0,
        dtype: Any = np.float64,
        seed: int | None = None,
    ) -> None:
        name = type(self).__name__
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ValueError(
                f"{name}: activation is {activation!r}, expected one of {sorted(ACTIVATIONS)}"
            )
        dtype = float_type(name, dtype)
        self.sizes = tuple(positive_int(name, f"sizes[{i}]", size) for i, size in enumerate(sizes))
        stds = [nonnegative(name, f"weight_stds[{i}]", std) for i, std in enumerate(weight_stds)]
        if len(self.sizes) < 2 or len(stds) != len(self.sizes) - 1:
            raise ValueError(
                f"{name}: {len(self.sizes)} sizes and {len(stds)} weight_stds, expected at least "
                "two sizes and one standard deviation less"
            )
        parameters = sum((D + 1) * H for D, H in itertools.pairwise(self.sizes))
        if parameters > MOST_PARAMETERS:
            raise ValueError(
                f"{name}: sizes are {self.sizes}, which make more parameters than memory can hold"
            )
        self.activation = activation
        self.weight_decay_lambda = nonnegative(name, "weight_decay_lambda", weight_decay_lambda)
        normal = np.random.randn if seed is None else _normal(name, seed)
        self.params: dict[str, Array] = {}
        self.layers: dict[str, Affine | Relu | Sigmoid] = {}
        depth = len(self.sizes) - 1
        for i, (D, H, std) in enumerate(
            zip(self.sizes[:-1], self.sizes[1:], stds, strict=True), start=1
        ):
            drawn = std or seed is None  # else there are zeros, which a file's weights replace
            W = (std * normal(D, H)).astype(dtype) if drawn else np.zeros((D, H), dtype)
            self.params[f"W{i}"] = W
            b = self.params[f"b{i}"] = np.zeros(H, dtype)
            self.layers[f"Affine{i}"] = Affine(W, b)
            if i < depth:
                layer = ACTIVATIONS[activation]
                self.layers[f"{layer.__name__}{i}"] = layer()
        self.last_layer = SoftmaxWithLoss()
        self._engines: list[Engine] = []
        self._standard_layers = tuple(map(type, self.layers.values()))
        self._shapes = {key: p.shape for key, p in self.params.items()}

    @property
    def lastLayer(self) -> SoftmaxWithLoss:
        """The loss layer."""
        return self.last_layer

    @lastLayer.setter
    def lastLayer(self, layer: SoftmaxWithLoss) -> None:
        self.last_layer = layer

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the parameters."""
        W = self.params["W1"]
        if type(W) is np.ndarray and (W.dtype is F64 or W.dtype is F32):
            return W.dtype
        return as_parameter(type(self).__name__, "params['W1']", W, 2).dtype

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.sizes))
        return f"{type(self).__name__}({sizes}, {self.activation}, {self.dtype})"

    def astype(self, dtype: Any) -> Network:
        """Return a copy of the network that computes in another type, or in the same.

        Parameters
        ----------
        dtype : float64 or float32

        Returns
        -------
        Network
            Of the same class; nothing is shared.

        Raises
        ------
        TypeError
            For any other type.
        """
        dtype = float_type(f"{type(self).__name__}.astype", dtype)
        twin = copy.deepcopy(self)
        with np.errstate(over="ignore"):  # 1e300 in float32 is inf
            twin.params = {key: np.array(p, dtype) for key, p in self.params.items()}
        return twin

    def predict(self, x: Any) -> Array:
        """Return the logits.

        Parameters
        ----------
        x : (N, D), (N, ...) or (D,) array_like

        Returns
        -------
        (N, C) or (C,) array
            Before the softmax, new.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fastbp.layers.Affine.forward`.
        """
        if self._is_batch(x, PREDICT_ROWS) and self.is_standard():
            with self._engine(PREDICT_ROWS) as engine:
                out, W = np.empty((len(x), self.sizes[-1]), self.dtype), self.params["W1"]
                for start in range(0, len(x), EVALUATION_ROWS):
                    piece = slice(start, start + EVALUATION_ROWS)
                    data = as_batches("predict", x[piece], NO_TARGETS, engine.plan, W)
                    engine.predict(out[piece], data)
            self._forget()
            return out
        return self._forward(x)

    def _forward(self, x: Any) -> Array:
        """Return the logits by way of the layers, which keep what backward needs."""
        for i, affine in enumerate(self._affines(), start=1):
            if affine.W is not self.params[f"W{i}"]:
                affine.W = self.params[f"W{i}"]
            if affine.b is not self.params[f"b{i}"]:
                affine.b = self.params[f"b{i}"]
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Any, t: Any) -> float:
        """Return the mean cross-entropy of a batch, in nats, and the weight decay.

        Parameters
        ----------
        x : (N, D) or (N, ...) array_like
        t : (N,) integer labels, or (N, C) one-hot rows

        Returns
        -------
        float

        Raises
        ------
        IndexError, TypeError, ValueError
            As the layers.
        """
        standard = getattr(type(self), "predict", None) is Network.predict
        y = self._forward(x) if standard else self.predict(x)
        return self.last_layer.forward(y, t) + self.decay()

    def accuracy(self, x: Any, t: Any) -> float:
        """Return the share of examples whose largest logit is at the target.

        Parameters
        ----------
        x : (N, D) or (N, ...) array_like
        t : (N,) integer labels, or (N, C) one-hot rows

        Returns
        -------
        float
            In [0, 1].

        Raises
        ------
        IndexError, TypeError, ValueError
            As the layers.
        """
        return self._evaluate("accuracy", x, t)[1]

    def evaluate(self, x: Any, t: Any) -> tuple[float, float]:
        """Return loss and accuracy over any number of examples, a few thousand at a time.

        Parameters
        ----------
        x : (N, D) or (N, ...) array_like
        t : (N,) integer labels, or (N, C) one-hot rows

        Returns
        -------
        loss, accuracy : float

        Raises
        ------
        IndexError, TypeError, ValueError
            As the layers.
        """
        return self._evaluate("evaluate", x, t)

    def _evaluate(self, method: str, x: Any, t: Any) -> tuple[float, float]:
        where = f"{type(self).__name__}.{method}"
        x = as_plain(where, "x", x)
        require_numbers(where, "x", x)
        if x.ndim < 2 or not len(x):
            raise ValueError(f"{where}: x has shape {x.shape}, expected (N, D) with N >= 1")
        t = as_targets(where, t, len(x), self.sizes[-1], self.dtype)
        pieces = [slice(i, i + EVALUATION_ROWS) for i in range(0, len(x), EVALUATION_ROWS)]
        sums = np.zeros(2)  # of the losses, and of the examples that are right
        if self._is_batch(x, 1) and self.is_standard():
            with self._engine(CONSECUTIVE_ROWS) as engine:
                for piece in pieces:
                    data = as_batches(where, x[piece], t[piece], engine.plan, self.params["W1"])
                    sums += engine.measure(data, len(t[piece]), self.last_layer.eps)
        else:
            loss_layer = SoftmaxWithLoss(self.last_layer.eps)
            for piece in pieces:
                y = self.predict(x[piece])
                loss = loss_layer.forward(y, t[piece])
                sums += loss * len(y), _count_right(y, t[piece])
        return float(sums[0]) / len(x) + self.decay(), float(sums[1]) / len(x)

    def gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the gradients of the loss by backpropagation.

        Parameters
        ----------
        x : (N, D) or (N, ...) array_like
        t : (N,) integer labels, or (N, C) one-hot rows

        Returns
        -------
        dict of arrays
            Keys and shapes of ``params``; new arrays.

        Raises
        ------
        IndexError, TypeError, ValueError
            As the layers.
        """
        return self.loss_and_gradient(x, t)[1]

    def loss_and_gradient(self, x: Any, t: Any) -> tuple[float, dict[str, Array]]:
        """Return :meth:`loss` and :meth:`gradient` of a batch at the price of the gradient.

        Parameters
        ----------
        x : (N, D) or (N, ...) array_like
        t : (N,) integer labels, or (N, C) one-hot rows

        Returns
        -------
        loss : float
        grads : dict of arrays

        Raises
        ------
        IndexError, TypeError, ValueError
            As the layers.
        """
        if self._is_batch(x, GRADIENT_ROWS) and self.is_standard():
            t = as_targets("SoftmaxWithLoss.forward", t, len(x), self.sizes[-1], self.dtype)
            with self._engine(len(x), packed=False) as engine:
                data = as_batches("Affine.forward", x, t, engine.plan)
                loss, grads = engine.gradient(
                    self.params, data, len(x), self.weight_decay_lambda, self.last_layer.eps
                )
            self._forget()
            for i, affine in enumerate(self._affines(), start=1):
                affine.dW, affine.db = grads[f"W{i}"], grads[f"b{i}"]
            return loss, grads
        loss = self.loss(x, t)
        dout = self.last_layer.backward()
        first, *rest = self.layers.values()
        for layer in reversed(rest):
            dout = layer.backward(dout)
        assert isinstance(first, Affine)  # noqa: S101 - tells the type checker
        first.backward_parameters(dout)  # nobody asks for the gradient of the input
        grads = {}
        for i, affine in enumerate(self._affines(), start=1):
            assert affine.dW is not None  # noqa: S101
            assert affine.db is not None  # noqa: S101
            grads[f"W{i}"], grads[f"b{i}"] = affine.dW, affine.db
            if self.weight_decay_lambda:
                grads[f"W{i}"] += self.weight_decay_lambda * affine.W
        return loss, grads

    def numerical_gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the gradients of the loss by central differences: independent of backpropagation.

        The loss is evaluated twice for every element of every parameter; of a network as it was
        built only what the element can change is, in compiled code (39,760 parameters and three
        examples: a few milliseconds).  A network with other layers, another loss or methods of its
        own takes :func:`fastbp.numerical_gradient`, a thousand times slower.

        Parameters
        ----------
        x : (N, D) or (N, ...) array_like
        t : (N,) integer labels, or (N, C) one-hot rows

        Returns
        -------
        dict of arrays
            Keys, shapes and type of ``params``; in float32 mostly rounding noise, with a warning.

        Raises
        ------
        IndexError, TypeError, ValueError
            As the layers.
        """
        own = (getattr(f, "__func__", None) for f in (self.loss, self.predict))
        if tuple(own) == (Network.loss, Network.predict):
            grads = network_differences(self, x, t)
            if grads is not None:
                return grads
        return {
            key: _gradient.numerical_gradient(lambda _: self.loss(x, t), p)
            for key, p in self.params.items()
        }

    @contextmanager
    def _engine(self, rows: int, packed: bool = True) -> Iterator[Engine]:
        """Lend the compiled loop, each Python thread its own; ``packed`` with parameters of now."""
        engine = None
        with suppress(IndexError):
            engine = self._engines.pop()
        if engine is None or engine.plan.rows < rows or engine.plan.dtype != self.dtype:
            rows = max(rows, CONSECUTIVE_ROWS)
            engine = Engine(self.sizes, self.activation, self.dtype, rows, slots=1)
        if packed:
            engine.plan.pack(self.params)
        yield engine
        if engine.plan.nbytes <= KEPT_BYTES:
            self._engines.append(engine)

    def _is_batch(self, x: Any, rows: int) -> bool:
        """Whether x is so many examples that the compiled loop is worth its call."""
        return (
            type(x) is np.ndarray
            and x.ndim >= 2
            and len(x) >= rows
            and math.prod(x.shape[1:]) == self.sizes[0]
            and x.dtype.kind in "fiub"
            and x.dtype.type is not np.longdouble
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the compiled loop's memory out of copies and pickles."""
        return {**vars(self), "_engines": []}

    def _forget(self) -> None:
        """Let the layers forget their inputs: a backward would belong to an older batch."""
        for layer in (*self.layers.values(), self.last_layer):
            layer.forget()

    def is_standard(self) -> bool:
        """Whether the network still is what its class says: nothing added, replaced or overridden.

        Only then may the compiled loop stand for the layers.
        """
        # Asked before every `gradient`: plain loops take half as long as `all` and `any`.
        for name in STANDARD_METHODS:
            if name in vars(self) or getattr(type(self), name) is not getattr(Network, name):
                return False
        layers = self.layers.values()
        if (
            tuple(map(type, layers)) != self._standard_layers
            or type(self.last_layer) is not SoftmaxWithLoss
            or self.params.keys() != self._shapes.keys()
        ):
            return False
        for layer in layers:
            if "forward" in vars(layer) or "backward" in vars(layer):
                return False
        owned = True  # of arrays that own their memory two are the same, or apart
        for key, p in self.params.items():
            if type(p) is not np.ndarray or p.shape != self._shapes[key] or not p.flags.writeable:
                return False
            if p.dtype != self.dtype or p.dtype.type not in FLOATS or not p.dtype.isnative:
                return False
            owned = owned and p.flags.owndata
        params = list(self.params.values())
        if owned:
            return len(set(map(id, params))) == len(params)
        return not any(np.may_share_memory(p, q) for p, q in itertools.combinations(params, 2))

    def _affines(self) -> list[Affine]:
        return [layer for layer in self.layers.values() if isinstance(layer, Affine)]

    def decay(self) -> float:
        """Return the weight decay's part of the loss."""
        if not self.weight_decay_lambda:
            return 0.0
        # Of the parameters: a layer learns of a new array in its place only with the next forward.
        weights = [p for key, p in self.params.items() if key.startswith("W")]
        squares = sum(float(np.vdot(W, W)) for W in weights)
        return 0.5 * self.weight_decay_lambda * squares


def _count_right(y: Array, t: Array) -> int:
    labels = t if t.ndim == 1 else t.argmax(axis=1)
    return int(np.count_nonzero(y.argmax(axis=1) == labels))


def _normal(where: str, seed: Any) -> Callable[..., Array]:
    try:
        rng = np.random.default_rng(operator.index(seed))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: seed is {seed!r}, expected an integer >= 0") from error
    return lambda *shape: rng.standard_normal(shape)
