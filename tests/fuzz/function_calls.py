"""Generated calls of the functions, each with its oracle."""

import math

import numpy as np

import fastbp
from fastbp import reference

from .arguments import SHAPES, Breaker, real
from .judge import Refusal, Want
from .losses import batch, double, fitting, guarded_loss, loss_want, softmax_and_loss


def sigmoid(x):
    # The reference's, which loses the smallest ones to overflow, where it is exact: above -700.
    return np.where(double(x) > -700, reference.sigmoid(double(x)), np.exp(double(x)))


def _step(x):
    return Want(reference.step_function(x), np.int64, 0)


def _sigmoid_grad(x):
    # (1 - y) * y of a rounded y: near y = 1 the rounding of y is all there is.
    y = sigmoid(x)
    return Want((1 - y) * y, x.dtype, 4, np.maximum(y, (1 - y) * y))


def _relu(x):
    return Want(np.where(x <= 0, 0, x), x.dtype, 0)


def _relu_grad(x):
    return Want(np.where(x <= 0, 0, 1), x.dtype, 0)


def _softmax(x):
    if not x.ndim or not x.shape[-1]:
        raise Refusal(ValueError, "softmax", "x", str(x.shape))
    if not x.size:
        return Want(np.empty(x.shape), x.dtype)
    wide = double(x)
    # The error of exp(x - max) is that of the difference, which is rounded in x's type.
    distance = np.nan_to_num(wide.max(-1, keepdims=True) - wide, posinf=0, neginf=0)
    y = reference.softmax(wide)
    return Want(y, x.dtype, 4, y * (2 + np.minimum(distance, 1e3)) + np.finfo(x.dtype).tiny)


ELEMENTWISE = {
    "step_function": _step,
    "sigmoid": lambda x: Want(sigmoid(x), x.dtype, 4),
    "sigmoid_grad": _sigmoid_grad,
    "relu": _relu,
    "relu_grad": _relu_grad,
    "softmax": _softmax,
}


def function(judge, r):
    """An element-wise function, or softmax."""
    name = r.choice(sorted(ELEMENTWISE))
    breaker = Breaker(r)
    x = breaker.array(name, "x", breaker.floats(*r.choice(SHAPES)), huge=True)
    judge.call(name, getattr(fastbp, name), [x], ELEMENTWISE[name])


def squared_error(judge, r):
    name = r.choice(("sum_squared_error", "mean_squared_error"))
    breaker = Breaker(r)
    shape = r.choice(SHAPES)
    y = breaker.array(name, "y", breaker.floats(*shape), huge=True)
    t = breaker.array(name, "t", breaker.floats(*shape), huge=True)

    def oracle(y, t):
        if y.shape != t.shape:
            raise Refusal(ValueError, name, str(y.shape), str(t.shape))
        dtype = np.result_type(y, t)
        if dtype == np.float32:
            return Want(_half_squares(y, t), np.float64, 2.0**29 * (y.size + 8))
        return Want(_half_squares(y, t), np.float64, y.size + 8)

    judge.call(name, getattr(fastbp, name), [y, t], oracle)


def _half_squares(y, t):
    exact = reference.sum_squared_error(double(y), double(t))
    # In float32 squares are infinite earlier; what comes out is a Python float.
    if np.result_type(y, t) == np.float32 and not exact < 1e37:
        return math.nan if np.isnan(exact) else math.inf
    return exact


def softmax_loss(judge, r):
    where = "SoftmaxWithLoss.forward"
    _, x, t = batch(judge, r, where)

    def oracle(x, t):
        x, t = fitting(where, x, t)
        return loss_want(x, softmax_and_loss(x, t)[2])

    judge.call("softmax_loss", fastbp.softmax_loss, [x, t], oracle)


def cross_entropy(judge, r):
    name = "cross_entropy_error"
    breaker = Breaker(r)
    N, C = r.choice((1, 2, 3, 8)), r.choice((1, 2, 3, 10))
    y = breaker.rng.dirichlet(np.ones(C), N).astype(r.choice((np.float32, np.float64)))
    y = breaker.array(name, "y", y)
    t = breaker.targets(name, N, C)
    eps = breaker.number("eps", 1e-7, real(name, "eps", lambda e: 0 <= e < 1))

    def oracle(y, t, eps):
        y, t = fitting(name, y, t)
        losses = guarded_loss(double(y), t, eps)
        unit = 2.0**29 if y.dtype == np.float32 else 1
        # Near y = 1 and y = 0 it is the sum y + eps that is rounded.
        largest = np.max(np.abs(losses[np.isfinite(losses)]), initial=1)
        smallest = np.nanmin(np.where(double(y) + eps > 0, double(y) + eps, np.inf), initial=1)
        if y.dtype == np.float32 and smallest < 1e-30:
            return Want(losses.mean(), np.float64, np.inf)
        return Want(losses.mean(), np.float64, 16 * unit, largest)

    judge.call(name, fastbp.cross_entropy_error, [y, t, eps], oracle)


CALLS = {function: 30, squared_error: 6, softmax_loss: 10, cross_entropy: 8}
