"""Generated calls of the layers, several on one object, each with its oracle."""

import math

import numpy as np

import fastbp

from .arguments import SHAPES, Breaker, fixed, is_number, real
from .function_calls import ELEMENTWISE, sigmoid
from .judge import ANYTHING, Refusal, Want
from .losses import (
    batch,
    double,
    fitting,
    guarded_loss,
    loss_want,
    rows_and_targets,
    softmax_and_loss,
)

SIZES = (0, 1, 1, 2, 3, 5, 8, 17)


def elementwise_layer(judge, r):
    """Relu or Sigmoid through a few forwards and backwards."""
    name = r.choice(("Relu", "Sigmoid"))
    layer, kept = getattr(fastbp, name)(), None
    shape = r.choice(SHAPES)
    for _ in range(r.randrange(1, 6)):
        breaker = Breaker(r)
        step = r.random()
        if step < 0.5:
            shape = shape if r.random() < 0.5 else r.choice(SHAPES)
            where = f"{name}.forward"
            x = breaker.array(where, "x", breaker.floats(*shape), huge=True)
            out = judge.call(where, layer.forward, [x], ELEMENTWISE[name.lower()])
            if out is not None:
                kept = x.value.copy()
        elif step < 0.95:
            shape = kept.shape if kept is not None else shape
            where = f"{name}.backward"
            dout = breaker.array(
                where, "dout", breaker.floats(*shape), None if kept is None else kept.dtype
            )

            def oracle(dout, where=where, kept=kept):
                if kept is None:
                    raise Refusal(RuntimeError, where, "forward first")
                if dout.shape != kept.shape:
                    raise Refusal(ValueError, where, str(dout.shape), str(kept.shape))
                if name == "Relu":
                    return Want(np.where(kept <= 0, 0, dout), kept.dtype, 0)
                y = sigmoid(kept)
                # Infinity times what is rounded to 0 is NaN.
                y = np.where(np.isfinite(dout), y, y.astype(kept.dtype))
                slope = (1 - y) * y
                scale = np.abs(double(dout)) * np.maximum(slope, y) + np.abs(double(dout)) * 1e-30
                return Want(double(dout) * slope, kept.dtype, 6, scale)

            # Before any forward it is this that must be said, whatever dout is.
            if kept is None:
                dout.refusal = Refusal(RuntimeError, where, "forward first")
            judge.call(where, layer.backward, [dout], oracle)
        else:
            layer.forget()
            kept = None


def affine(judge, r):
    """Affine through forwards, backwards, and parameters replaced or changed in between."""
    D, H = r.choice(SIZES[1:]), r.choice(SIZES[1:])
    breaker = Breaker(r)
    W = breaker.array("Affine", "W", breaker.floats(D, H))
    b = breaker.array("Affine", "b", breaker.floats(H))

    def build(W, b):
        if W.ndim != 2:
            raise Refusal(ValueError, "Affine", "W", str(W.shape))
        if b.ndim != 1:
            raise Refusal(ValueError, "Affine", "b", str(b.shape))
        if b.shape != W.shape[1:]:
            raise Refusal(ValueError, "Affine", "b", str(b.shape), str(W.shape))
        return ANYTHING

    layer = judge.call("Affine", fastbp.Affine, [W, b], build, fresh=False)
    if layer is None:
        return
    model = _Affine(layer, W.value, b.value)
    for _ in range(r.randrange(1, 6)):
        r.choice((model.forward, model.forward, model.backward, model.backward, model.change))(
            judge, r
        )


class _Affine:
    """A layer, and what it should hold."""

    def __init__(self, layer, W, b):
        self.layer, self.W, self.b = layer, W, b.astype(W.dtype)
        self.x = None
        self.shape = ()

    def forward(self, judge, r):
        breaker = Breaker(r)
        D, N = self.W.shape[0], r.choice(SIZES)
        shapes = [(N, D), (N, D), (D,), (N, D, 1), (N, 1, D)]
        where = "Affine.forward"
        x = breaker.array(where, "x", breaker.floats(*r.choice(shapes)), self.W.dtype)

        def oracle(x):
            rows = x.reshape(1, -1) if x.ndim < 2 else x.reshape(len(x), math.prod(x.shape[1:]))
            if rows.shape[1] != D:
                raise Refusal(ValueError, where, str(x.shape), str(self.W.shape))
            want = _product(rows, self.W, self.b)
            return (
                Want(want.value[0], want.dtype, want.bound, want.scale[0])
                if x.ndim == 1
                else (Want(want.value, want.dtype, want.bound, want.scale))
            )

        out = judge.call(where, self.layer.forward, [x], oracle)
        if out is not None:
            self.shape = x.value.shape
            self.x = x.value.reshape(1 if x.value.ndim < 2 else len(x.value), D)

    def backward(self, judge, r):
        breaker = Breaker(r)
        where = "Affine.backward"
        H, dtype = self.W.shape[1], self.W.dtype
        shape = (H,) if len(self.shape) == 1 else (0 if self.x is None else len(self.x), H)
        dout = breaker.array(where, "dout", breaker.floats(*shape), dtype)
        stale = self.x is not None and self.x.shape[1] != self.W.shape[0]
        if self.x is None:
            dout.refusal = Refusal(RuntimeError, where, "forward first")
        elif stale:
            dout.refusal = Refusal(ValueError, where, "W", str(self.W.shape))

        def oracle(dout):
            if dout.shape != shape:
                raise Refusal(ValueError, where, str(dout.shape), str(shape))
            rows = dout.reshape(len(self.x), H)
            return _reshape(_product(rows, self.W.T, 0), self.shape)

        dx = judge.call(where, self.layer.backward, [dout], oracle)
        if dx is not None:
            rows = dout.value.reshape(len(self.x), H)
            want = _product(self.x.astype(dtype).T, rows, 0)
            judge.call("Affine.dW", lambda: self.layer.dW, [], lambda: want)
            ones = np.ones((1, len(rows)), dtype)
            total = _product(ones, rows, np.zeros(1))
            judge.call("Affine.db", lambda: self.layer.db, [], lambda: _reshape(total, (H,)))

    def change(self, judge, r):
        """Put new parameters in place, of the same shape or another, or another type."""
        breaker = Breaker(r)
        D, H = self.W.shape
        if r.random() < 0.3:
            D, H = r.choice(SIZES[1:]), r.choice(SIZES[1:])
        W, b = breaker.floats(D, H), breaker.floats(H)
        if r.random() < 0.3 and W.shape == self.W.shape and self.layer.W.flags.writeable:
            with np.errstate(all="ignore"):
                self.layer.W[...] = W
            self.W = self.W.copy()
            self.W[...] = W
            return
        self.layer.W, self.layer.b = W, b
        self.W, self.b = W, b.astype(W.dtype)


def _product(x, W, b):
    """``x @ W + b`` with the bound of its rounding errors: those of all the terms."""
    x, W, b, dtype = double(x), double(W), double(b), W.dtype
    with np.errstate(all="ignore"):
        scale, value = np.abs(x) @ np.abs(W) + np.abs(b), x @ W + b
    return Want(value, dtype, 2 + x.shape[-1], scale)


def _reshape(want, shape):
    return Want(want.value.reshape(shape), want.dtype, want.bound, want.scale.reshape(shape))


SMALLEST = float(np.finfo(np.float32).tiny)


def loss_layer(judge, r):
    """SoftmaxWithLoss through forwards and backwards."""
    breaker = Breaker(r)
    eps = breaker.number(
        "eps", r.choice((0.0, 0.0, 1e-7)), real("SoftmaxWithLoss", "eps", lambda e: 0 <= e < 1)
    )
    layer = judge.call("SoftmaxWithLoss", fastbp.SoftmaxWithLoss, [eps], lambda _: ANYTHING)
    if layer is None:
        return
    kept, where = None, "SoftmaxWithLoss.forward"
    for _ in range(r.randrange(1, 5)):
        if r.random() < 0.55:
            _, x, t = batch(judge, r, where)

            def oracle(x, t):
                logits, t = fitting(where, x, t)
                y, _, losses = softmax_and_loss(logits, t)
                if not eps.value:
                    return loss_want(logits, losses)
                if x.dtype == np.float32 and eps.value < SMALLEST and y.min() < SMALLEST:
                    return ANYTHING  # the guard is lost in what float32 has no digits for
                guarded = guarded_loss(y, t, eps.value).mean()
                unit = 2.0**29 if x.dtype == np.float32 else 1
                wide = np.abs(double(x))
                scale = np.max(wide[np.isfinite(wide)], initial=1)
                return Want(
                    guarded, np.float64, 64 * unit, scale * 100 if eps.value < 1e-9 else scale
                )

            if judge.call(where, layer.forward, [x, t], oracle) is not None:
                kept = x.value, t.value
        else:
            _loss_backward(judge, r, layer, kept)


def _loss_backward(judge, r, layer, kept):
    where = "SoftmaxWithLoss.backward"
    breaker = Breaker(r)

    def scalar(value):
        if np.ndim(value) or not (
            is_number(value) or isinstance(value, (bool, np.bool_, np.ndarray))
        ):
            raise Refusal(TypeError, where, "dout")
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
            raise Refusal(TypeError, where, "dout")
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf

    dout = breaker.number("dout", r.choice((1, 1, 2.5, -1.0)), scalar)
    if kept is None:
        dout.refusal = Refusal(RuntimeError, where, "forward first")

    def oracle(dout):
        x, t = rows_and_targets(where, *kept)
        y, rows, _ = softmax_and_loss(x, t)
        with np.errstate(all="ignore"):
            factor = np.float64(kept[0].dtype.type(dout / len(x)))
        if not np.isfinite(factor):
            return ANYTHING  # infinity times what may or may not be rounded to 0
        value = (y * rows.sum(1, keepdims=True) - rows) * factor  # rows sum to 1, to 1e-3
        distance = np.nan_to_num(double(x).max(1, keepdims=True) - double(x), posinf=0, neginf=0)
        scale = np.abs(factor) * (y * (2 + np.minimum(distance, 1e3)) + rows + 1e-37)
        return Want(value.reshape(kept[0].shape), kept[0].dtype, 6, scale.reshape(kept[0].shape))

    judge.call(where, layer.backward, [dout], oracle)


def arithmetic(judge, r):
    """MulLayer or AddLayer, of numbers and of arrays that broadcast."""
    name = r.choice(("MulLayer", "AddLayer"))
    layer, kept = getattr(fastbp, name)(), None
    shapes = r.choice(
        (((3, 5), (3, 5)), ((3, 5), (5,)), ((3, 1), (1, 4)), ((), (2,)), ((4,), (4,)))
    )
    multiply = name == "MulLayer"
    for _ in range(r.randrange(1, 4)):
        breaker = Breaker(r)
        if r.random() < 0.6 or (kept is None and r.random() < 0.7):
            where = f"{name}.forward"
            dtype = r.choice((np.float32, np.float64))
            x, y = (
                breaker.array(where, n, breaker.floats(*shape, dtype=dtype), huge=True)
                if shape or r.random() < 0.5
                else fixed(n, r.choice((2, -3, 0.5, True, 7)))
                for n, shape in zip("xy", shapes, strict=True)
            )

            def oracle(x, y, where=where):
                try:
                    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
                except ValueError:
                    raise Refusal(ValueError, where, str(np.shape(x)), str(np.shape(y))) from None
                dtype = np.result_type(x, y)
                value = double(x) * double(y) if multiply else double(x) + double(y)
                assert value.shape == shape
                scale = None if multiply else np.abs(double(x)) + np.abs(double(y))
                return Want(value, dtype, 2, scale)

            if judge.call(where, layer.forward, [x, y], oracle, fresh=False) is not None:
                kept = x.value, y.value
        else:
            _arithmetic_backward(judge, breaker, layer, kept, multiply)


def _arithmetic_backward(judge, breaker, layer, kept, multiply):
    where = f"{'MulLayer' if multiply else 'AddLayer'}.backward"
    x, y = kept if kept is not None else (np.zeros(2), np.zeros(2))
    shape, dtype = np.broadcast_shapes(np.shape(x), np.shape(y)), np.result_type(x, y)
    dout = breaker.array(where, "dout", breaker.floats(*shape, dtype=dtype), dtype, special=False)
    if kept is None:
        dout.refusal = Refusal(RuntimeError, where, "forward first")

    def oracle(dout):
        if dout.ndim and dout.shape != shape:
            raise Refusal(ValueError, where, str(dout.shape), str(shape))
        full = np.broadcast_to(double(dout), shape)
        return tuple(
            # Rounded to the type before it is summed: what overflows there is infinite.
            _summed(double((full * double(factor)).astype(dtype)), np.shape(own), dtype)
            for own, factor in ((x, y if multiply else 1), (y, x if multiply else 1))
        )

    judge.call(where, layer.backward, [dout], oracle)


def _summed(gradient, shape, dtype):
    """The gradient of an input that was repeated: the sum over its copies."""
    scale = np.abs(gradient)
    while gradient.ndim > len(shape):
        gradient, scale = gradient.sum(0), scale.sum(0)
    for axis, n in enumerate(shape):
        if n == 1 != gradient.shape[axis]:
            gradient, scale = gradient.sum(axis, keepdims=True), scale.sum(axis, keepdims=True)
    return Want(gradient, dtype, 16, scale)


CALLS = {elementwise_layer: 12, affine: 12, loss_layer: 8, arithmetic: 6}
