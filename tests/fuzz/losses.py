"""Losses in NumPy, with targets that fit them or not, and how near a result must be."""

import numpy as np

from .arguments import Breaker
from .judge import Refusal, Want


def double(x):
    return np.asarray(x, np.float64)


def rows_and_targets(where, x, t):
    """Return (N, C) logits and targets that fit them, or raise the refusal that is due."""
    if x.ndim not in (1, 2) or not x.size:
        raise Refusal(ValueError, where, str(x.shape))
    x = x.reshape(1, -1) if x.ndim == 1 else x
    N, C = x.shape
    if t.ndim == 1:
        if len(t) != N:
            raise Refusal(ValueError, where, "t")
        if t.max() >= C:
            raise Refusal(IndexError, where, "t[", f"[0, {C})")
    elif t.shape != (N, C):
        raise Refusal(ValueError, where, "t", str(t.shape))
    return x, t


def softmax_and_loss(x, t):
    """Return probabilities and losses of the rows, exactly, in float64; t may be probabilities."""
    x = double(x)
    shifted = x - x.max(1, keepdims=True)
    exp = np.exp(shifted)
    total = exp.sum(1, keepdims=True)
    rows = t if t.ndim == 2 else np.eye(x.shape[1])[t]
    log_y = shifted - np.log(total)
    losses = -np.where(rows != 0, rows * log_y, 0).sum(1)
    # NaN anywhere in a row is NaN, also where its target is 0.
    losses[np.isnan(exp / total).any(1)] = np.nan
    return exp / total, rows, losses


def guarded_loss(y, t, eps):
    rows = t if t.ndim == 2 else np.eye(y.shape[1])[t]
    return -np.where(rows != 0, rows * np.log(y + eps), 0).sum(1)


def loss_want(x, losses):
    """How near a mean loss must be: a row's error is some rounding errors of its logits."""
    wide = np.abs(double(x))
    scale = np.max(wide[np.isfinite(wide)], initial=1) * 4
    unit = 2.0**29 if x.dtype == np.float32 else 1
    loss = losses.mean()
    if x.dtype == np.float32 and np.isfinite(loss) and scale > 1e37:
        return Want(loss, np.float64, np.inf)
    return Want(loss, np.float64, 8 * unit, scale)


def batch(judge, r, where):
    """Return a breaker, logits and targets for a loss."""
    breaker = Breaker(r)
    N, C = r.choice((1, 1, 2, 3, 8, 17)), r.choice((1, 2, 3, 10, 17))
    x = breaker.floats(N, C)
    x = breaker.array(where, "x", x, huge=r.random() < 0.3)
    return breaker, x, breaker.targets(where, N, C)


def fitting(where, x, t):
    """Return logits and targets as batches; of one example the target is a label or one row."""
    if x.ndim == 1 and x.size:
        C = x.size
        if t.ndim == 1 and (t.shape == (1,) != (C,)):
            return rows_and_targets(where, x, t)
        if t.ndim == 1:  # a row, whose type says whether the numbers are probabilities
            if t.shape != (C,):
                raise Refusal((ValueError, TypeError), where)
            raise Unclear
        raise Refusal(ValueError, where, "t")
    return rows_and_targets(where, x, t)


class Unclear(Refusal):
    """Labels that came to stand for a row of probabilities: refused unless they are one."""

    def __init__(self):
        super().__init__((ValueError, TypeError), "t")
