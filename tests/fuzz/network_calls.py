"""Generated calls of networks, each with its oracle."""

import math
import operator

import numpy as np

import fastbp

from .arguments import Breaker, count, real
from .judge import ANYTHING, Finding, Refusal, Want
from .losses import double
from .model import Model, built, near_kink, require_fitting, units

NETWORKS = ("TwoLayerNet", "MultiLayerNet")


def construct(judge, r):
    """Networks with one argument that is none."""
    name = r.choice(NETWORKS)
    breaker = Breaker(r)
    size = count(name, "_size")

    def size_oracle(value):
        number = size(value)
        # What no address space holds is refused; less may be too much for this machine.
        if number > 2**59:
            raise Refusal((ValueError, MemoryError))
        if number > 2**30:
            raise Refusal(MemoryError)
        return number

    def activation_oracle(value):
        if value not in ("relu", "sigmoid"):
            raise Refusal(ValueError, name, "activation")
        return value

    def seed_oracle(value):
        if value is None:
            return value
        try:
            assert operator.index(value) >= 0
        except (TypeError, AssertionError):
            raise Refusal(ValueError, name, "seed") from None
        return value

    def std_oracle(value):
        if name == "MultiLayerNet" and isinstance(value, str):
            if value.lower() not in ("relu", "he", "sigmoid", "xavier"):
                raise Refusal(ValueError, name, "weight_init_std")
            return value
        return real(name, "weight_init_std", lambda v: 0 <= v < math.inf, NUMBER_ERRORS)(value)

    D, H, C = r.choice((1, 3, 8)), r.choice((1, 4)), r.choice((1, 2, 5))
    given = [
        breaker.number("input_size", D, size_oracle),
        breaker.number("hidden_size", H, size_oracle),
        breaker.number("output_size", C, size_oracle),
    ]
    if name == "MultiLayerNet":
        given[1].object, given[1].name = [given[1].object], "hidden_size_list"
    choices = {
        "weight_init_std": breaker.number("std", 0.01, std_oracle),
        "activation": breaker.number(
            "activation", r.choice(("relu", "sigmoid")), _hashable(activation_oracle)
        ),
        "seed": breaker.number("seed", 3, seed_oracle),
    }
    if name == "MultiLayerNet":
        choices["weight_decay_lambda"] = breaker.number(
            "decay",
            0.0,
            real(name, "weight_decay_lambda", lambda v: 0 <= v < math.inf, NUMBER_ERRORS),
        )
    dtype = r.choice((np.float32, np.float64, "float32", "f8", np.dtype("f4")))
    refusals = [g.refusal for g in choices.values() if g.refusal]
    if r.random() < 0.1 and not refusals and not any(g.refusal for g in given):
        dtype = r.choice(
            (np.float16, int, "U3", object, "nonsense", 3.5, np.longdouble, bool, "c8")
        )
        refusals = [Refusal(TypeError, name, "dtype")]

    def oracle(*_):
        if refusals:
            raise refusals[0]
        return ANYTHING

    keywords = {key: g.object for key, g in choices.items()} | {"dtype": dtype}
    with np.errstate(over="ignore", invalid="ignore"):  # of weights that are huge
        net = judge.call(name, getattr(fastbp, name), given, oracle, keywords)
    if net is not None and (
        net.params["W1"].shape != (net.sizes[0], net.sizes[1]) or net.dtype != np.dtype(dtype)
    ):
        raise Finding(f"{name}: {net!r} of {given}, {keywords}")


NUMBER_ERRORS = (TypeError, ValueError)


def _hashable(oracle):
    def checked(value):
        return oracle(value if isinstance(value, str) else "none")

    return checked


METHODS = {
    "predict": "Affine.forward",
    "loss": "Affine.forward",
    "gradient": "Affine.forward",
    "loss_and_gradient": "Affine.forward",
    "accuracy": "accuracy",
    "evaluate": "evaluate",
}


def network(judge, r):
    """A few calls of the methods of one network, its parameters changed in between."""
    net, model = built(r)
    for _ in range(r.randrange(1, 5)):
        if r.random() < 0.25:
            _change(r, net)
            model.take(net.params)
        if r.random() < 0.1:
            net.last_layer.eps = model.eps = r.choice((0.0, 1e-7))
        _method(judge, r, net, model)


def _change(r, net):
    """Change parameters as a user may: in place, or by another array."""
    rng = np.random.default_rng(r.getrandbits(32))
    key = r.choice(sorted(net.params))
    p = net.params[key]
    new = rng.normal(size=p.shape).astype(net.dtype)
    how = r.choice(("in place", "new", "Fortran", "view with gaps", "read-only", "one nan"))
    if how == "in place" and p.flags.writeable:
        p[...] = new
    elif how == "one nan" and r.random() < 0.3:
        new.reshape(-1)[0] = np.nan
        net.params[key] = new
    elif how == "Fortran":
        net.params[key] = np.asfortranarray(new)
    elif how == "view with gaps":
        wide = np.zeros((*p.shape, 2), p.dtype)
        wide[..., 0] = new
        net.params[key] = wide[..., 0]
    else:
        net.params[key] = new
        new.flags.writeable = how != "read-only"


def _method(judge, r, net, model):
    method = r.choice(sorted(METHODS))
    D, C = net.sizes[0], net.sizes[-1]
    N = r.choice((1, 2, 5, 5, 16, 17, 33, 300 if r.random() < 0.3 else 3))
    breaker = Breaker(r)
    where = METHODS[method]
    many = method in ("accuracy", "evaluate")
    # Of arrays that are refused the message names the method or the first layer.
    x = breaker.array("", "x", breaker.floats(N, D), net.dtype)
    if many and x.refusal is None and x.value.dtype != net.dtype:
        raise AssertionError
    given = [x]
    if method != "predict":
        given.append(breaker.targets("", N, C))
    bound = 32 * units(net.dtype)

    def oracle(x, t=None):
        single = x.ndim == 1
        if many and (x.ndim < 2 or not len(x)):
            raise Refusal(ValueError, where, str(x.shape))
        rows = x.reshape(1, -1) if x.ndim < 2 else x.reshape(len(x), math.prod(x.shape[1:]))
        if rows.shape[1] != D:
            raise Refusal(ValueError, "expected")  # that of x or that of t
        if method == "predict":
            y = scale = np.empty((0, C))
            if len(rows):
                y, scale = model.logits(double(rows))
            shape = y.shape[1:] if x.ndim == 1 else y.shape
            return Want(
                y.reshape(shape), net.dtype, 64 + 4 * max(net.sizes), scale.reshape(shape) + 1e-30
            )
        require_fitting(t, len(rows), C, single)
        with np.errstate(all="ignore"):
            losses, grads = model.losses(double(rows), t)
            cancelled = model.cancellation()
        largest = np.nanmax(np.where(np.isfinite(losses), losses, 0), initial=1)
        _, size = model.logits(double(rows))
        size = np.max(size, initial=1, where=np.isfinite(size))
        loss = Want(
            losses.mean() + model.penalty(),
            np.float64,
            bound,
            (largest + size) * (1e3 if model.eps else 1),
        )
        if method == "loss":
            return loss
        if many:
            y, scale = model.logits(double(rows))
            accuracy = _accuracy(y, scale, t, net.dtype)
            return accuracy if method == "accuracy" else (loss, accuracy)
        wants = _gradients(grads, cancelled, net, rows, size)
        return wants if method == "gradient" else (loss, wants)

    judge.call(f"Network.{method}", getattr(net, method), given, oracle)


def _accuracy(y, scale, t, dtype):
    """Return the share of right rows; anything where rounding decides."""
    unit = 2.0**-23 if dtype == np.float32 else 2.0**-52
    ordered = np.sort(y, axis=1)
    if not np.isfinite(y).all() or (
        y.shape[1] > 1 and (ordered[:, -1] - ordered[:, -2] <= 512 * unit * scale.max(1)).any()
    ):
        return ANYTHING
    labels = t if t.ndim == 1 else t.argmax(1)
    if t.ndim == 2 and t.shape[1] > 1 and (np.diff(np.sort(t, 1)[:, -2:]) < 1e-6).any():
        return ANYTHING
    return Want(np.mean(y.argmax(1) == labels), np.float64)


def _gradients(grads, cancelled, net, rows, size):
    """Return what gradients must be near; at a kink of ReLU rounding decides."""
    if not all(np.isfinite(g).all() for g in grads.values()):
        return ANYTHING
    kinks = net.activation == "relu" and len(net.sizes) > 2 and net.dtype == np.float32
    if kinks and near_kink(net, rows):
        return ANYTHING
    top = max((np.abs(g).max(initial=0) for g in grads.values()), default=0)
    scale = (top + 1e-3) * min(size, 1e6)
    # 256 units of what was added up, and 4 of what was p - t before it was small.
    return {
        key: Want(g, net.dtype, 256, scale + cancelled[key] * (4 / 256)) for key, g in grads.items()
    }


def network_differences(judge, r):
    """A network's numerical gradient against backpropagation in NumPy."""
    net, model = built(r, np.float64)
    breaker = Breaker(r)
    N = r.choice((1, 2, 5))
    x = breaker.array("", "x", breaker.floats(N, net.sizes[0]), net.dtype, special=False)
    t = breaker.targets("", N, net.sizes[-1])

    def oracle(x, t):
        single = x.ndim == 1
        rows = x.reshape(1, -1) if x.ndim < 2 else x.reshape(len(x), math.prod(x.shape[1:]))
        if rows.shape[1] != net.sizes[0]:
            raise Refusal(ValueError, str(x.shape))
        if not len(rows):
            raise Refusal(ValueError)
        require_fitting(t, len(rows), net.sizes[-1], single)
        if _near_kink_wide(net, rows):
            return ANYTHING
        grads = model.losses(double(rows), t)[1]
        top = 1 + max(np.abs(g).max() for g in grads.values()) + np.abs(rows).max() ** 3
        return {key: Want(g, np.float64, 2.0**33, top) for key, g in grads.items()}

    judge.call("Network.numerical_gradient", net.numerical_gradient, [x, t], oracle)


def _near_kink_wide(net, rows):
    """Whether a step of the differences may cross a kink of ReLU."""
    if net.activation != "relu":
        return False
    model = Model(net.sizes, net.activation, 0.0).take(net.params)
    x = double(rows)
    reach = 1e-4 * (1 + np.abs(x).max(initial=0))
    for i in range(1, len(net.sizes) - 1):
        x = x @ model.params[f"W{i}"] + model.params[f"b{i}"]
        if (np.abs(x) <= reach).any():
            return True
        reach = 1e-4 * (1 + np.abs(x).max()) + reach * np.abs(model.params[f"W{i + 1}"]).sum()
        x = np.maximum(x, 0)
    return False


CALLS = {construct: 6, network: 6, network_differences: 1}
