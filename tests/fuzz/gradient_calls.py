"""Generated calls of derivatives by differences, of functions known by heart."""

import math
import warnings

import numpy as np

import fastbp

from .arguments import Breaker, fixed, real
from .judge import ANYTHING, Given, Refusal, Want
from .losses import double


def differences(judge, r):
    """numerical_gradient, numerical_diff and gradient_descent of functions known by heart."""
    name = r.choice(
        ("numerical_gradient", "numerical_gradient", "numerical_diff", "gradient_descent")
    )
    breaker = Breaker(r)
    if name == "numerical_diff":
        x = fixed("x", r.choice((0.5, -2, 3, np.float64(1.5))))
        judge.call(
            name,
            fastbp.numerical_diff,
            [fixed("f", _square), x],
            lambda f, x: Want(2 * x, np.float64, 2.0**30, 1.0),
            fresh=False,
        )
        return
    shape = r.choice(((), (1,), (4,), (2, 3), (0,), (2, 0)))
    x = breaker.floats(*shape, dtype=np.float64)
    f, slope, returns = r.choice(FUNCTIONS)
    given, refusal = _moved(breaker, r, name, x)
    keywords = {}
    if name == "gradient_descent":
        lr = breaker.number("lr", 0.1, real(name, "lr", math.isfinite))
        step_num = breaker.number("step_num", 3, _steps(name))
        if step_num.refusal is None and step_num.value > 3:  # it would do as it is told
            step_num = fixed("step_num", 2)
        keywords = {"lr": lr.object, "step_num": step_num.object}
        refusal = refusal or lr.refusal or step_num.refusal

    def oracle(f, x):
        if refusal is not None:
            raise refusal
        if not returns and x.size and keywords.get("step_num", 1):
            raise Refusal(ValueError, "numerical_gradient", "f returned")
        if not returns:
            return ANYTHING
        if name == "numerical_gradient":
            return Want(slope(double(x)), x.dtype.newbyteorder("="), 2.0**31, 1 + np.abs(double(x)))
        if abs(lr.value) > 10:
            return ANYTHING
        y = double(x)
        for _ in range(step_num.value):
            y = y - lr.value * slope(y)
        return Want(y, x.dtype, 2.0**35, 1 + np.abs(double(x)))

    with warnings.catch_warnings():
        if given.value is not None and given.value.dtype.type is np.float32:
            warnings.filterwarnings("ignore", "numerical_gradient: x has dtype float32")
            oracle = _or_noise(oracle)
        judge.call(name, getattr(fastbp, name), [fixed("f", f), given], oracle, keywords)


def _square(x):
    return x * x


def _steps(where):
    def oracle(value):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < 0:
            raise Refusal(ValueError, where, "step_num")
        return int(value)

    return oracle


def _or_noise(oracle):
    """In float32 differences are mostly noise."""

    def noisy(*arguments):
        want = oracle(*arguments)
        return ANYTHING if isinstance(want, Want) else want

    return noisy


def _moved(breaker, r, name, x):
    """Return an array to move, and the refusal that is due."""
    if not breaker._turn():
        return fixed("x", x), None
    how = r.choice(
        (
            "float32",
            "integers",
            "read-only",
            "list",
            "masked",
            "complex",
            "big-endian",
            "gaps",
            "None",
            "str",
        )
    )
    wrong = Refusal(TypeError, name)
    changed = {
        "float32": lambda: (x.astype(np.float32), None),
        "integers": lambda: (x.astype(int), wrong),
        "list": lambda: (x.tolist(), wrong),
        "masked": lambda: (np.ma.array(x), wrong),
        "complex": lambda: (x.astype(complex), wrong),
        "big-endian": lambda: (x.astype(">f8"), None),
        "gaps": lambda: (np.repeat(x, 2, -1)[..., ::2] if x.ndim else x, None),
        "None": lambda: (None, wrong),
        "str": lambda: ("abc", wrong),
        "read-only": lambda: (x.copy(), Refusal(ValueError, name, "read-only")),
    }
    other, refusal = changed[how]()
    if how == "read-only":
        other.flags.writeable = False
        if name == "gradient_descent":  # which takes a copy
            refusal = None
    value = other if refusal is None else None
    return Given("x", other, value, how), refusal


FUNCTIONS = (
    (lambda x: float((x * x).sum()), lambda x: 2 * x, True),
    (lambda x: (3 * x).sum(), lambda x: np.full(x.shape, 3.0), True),
    (lambda x: np.array(np.sin(x).sum()), np.cos, True),
    (lambda x: 5, np.zeros_like, True),
    (lambda x: x.reshape(-1)[:1], None, False),
    (lambda x: None, None, False),
    (lambda x: "1", None, False),
    (lambda x: [1.0, 2.0], None, False),
    (lambda x: 1j, None, False),
)


CALLS = {differences: 8}
