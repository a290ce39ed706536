"""Generated calls of gradients, networks, optimizers, ``fit`` and files, each with its oracle."""

import math
import operator
import warnings

import numpy as np
import scipy.sparse

import fastbp
from fastbp import reference
from fastbp.reference import layers as plain

from .arguments import Breaker, count, fixed, real
from .judge import ANYTHING, Finding, Given, Refusal, Want
from .layer_calls import SHAPES, double, guarded_loss, softmax_and_loss

NETWORKS = ("TwoLayerNet", "MultiLayerNet")


# --- a network in NumPy --------------------------------------------------------------------------


class Model:
    """What a network should compute, in float64."""

    def __init__(self, sizes, activation, decay, eps=0.0):
        self.sizes, self.activation, self.decay, self.eps = sizes, activation, decay, eps
        self.params = {}

    def take(self, params):
        self.params = {key: double(p).copy() for key, p in params.items()}
        return self

    def logits(self, x):
        """Return the logits of rows and, for bounds, the size of what was added up for them."""
        self.layers = []
        scale = np.abs(x)
        for i in range(1, len(self.sizes)):
            W, b = self.params[f"W{i}"], self.params[f"b{i}"]
            scale = scale @ np.abs(W) + np.abs(b)
            layers = [plain.Affine(W, b)]
            if i < len(self.sizes) - 1:
                layers.append(plain.Relu() if self.activation == "relu" else plain.Sigmoid())
            for layer in layers:
                x = layer.forward(x)
            self.layers += layers
        return x, scale

    def losses(self, x, t):
        """Return the losses of the rows, without decay, and the gradients of their mean."""
        y, _ = self.logits(x)
        p, rows, losses = softmax_and_loss(y, t)
        if self.eps:
            losses = guarded_loss(p, t, self.eps)
        dout = (p * rows.sum(1, keepdims=True) - rows) / len(x)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        grads = {}
        affines = [layer for layer in self.layers if isinstance(layer, plain.Affine)]
        for i, affine in enumerate(affines, start=1):
            grads[f"W{i}"] = affine.dW + self.decay * affine.W
            grads[f"b{i}"] = affine.db
        return losses, grads

    def penalty(self):
        weights = (p for key, p in self.params.items() if key[0] == "W")
        return 0.5 * self.decay * sum(float((W * W).sum()) for W in weights)


SIZES = ((4, 5, 3), (7, 9, 10), (1, 1, 2), (16, 3), (2, 16, 1), (7, 5, 9, 3), (2, 2, 2, 2, 2))
POOL = {}


def built(r, dtype=None):
    """Return a valid network and its model.

    Networks are used again, with new parameters: what an earlier case left behind must not matter,
    and it saves the memory of the compiled loop from being made each time.
    """
    sizes, activation = r.choice(SIZES), r.choice(("relu", "sigmoid"))
    dtype = dtype or r.choice((np.float32, np.float64))
    key = sizes, activation, dtype
    if key not in POOL:
        D, *hidden, C = sizes
        POOL[key] = fastbp.MultiLayerNet(D, hidden, C, activation, dtype=dtype, seed=0)
    net = POOL[key]
    net.weight_decay_lambda, net.last_layer.eps = r.choice((0.0, 0.0, 0.1)), 0.0
    rng = np.random.default_rng(r.randrange(1000))
    for name, p in net.params.items():
        size = (2 / p.shape[0]) ** 0.5 if p.ndim == 2 else 1
        net.params[name] = (size * rng.standard_normal(p.shape)).astype(dtype)
    return net, Model(net.sizes, activation, net.weight_decay_lambda).take(net.params)


def units(dtype):
    return 2.0**29 if dtype == np.float32 else 1.0


# --- networks ------------------------------------------------------------------------------------


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
        "activation": breaker.number("activation", r.choice(("relu", "sigmoid")), _hashable(activation_oracle)),
        "seed": breaker.number("seed", 3, seed_oracle),
    }
    if name == "MultiLayerNet":
        choices["weight_decay_lambda"] = breaker.number(
            "decay", 0.0, real(name, "weight_decay_lambda", lambda v: 0 <= v < math.inf, NUMBER_ERRORS)
        )
    dtype = r.choice((np.float32, np.float64, "float32", "f8", np.dtype("f4")))
    refusals = [g.refusal for g in choices.values() if g.refusal]
    if r.random() < 0.1 and not refusals and not any(g.refusal for g in given):
        dtype = r.choice((np.float16, int, "U3", object, "nonsense", 3.5, np.longdouble, bool, "c8"))
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
        single = x.ndim < 2
        if many and (single or not len(x)):
            raise Refusal(ValueError, where, str(x.shape))
        rows = x.reshape(1, -1) if single else x.reshape(len(x), math.prod(x.shape[1:]))
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
        _fits(t, len(rows), C, single)
        with np.errstate(all="ignore"):
            losses, grads = model.losses(double(rows), t)
        largest = np.nanmax(np.where(np.isfinite(losses), losses, 0), initial=1)
        _, size = model.logits(double(rows))
        size = np.max(size, initial=1, where=np.isfinite(size))
        loss = Want(
            losses.mean() + model.penalty(), np.float64, bound, (largest + size) * (1e3 if model.eps else 1)
        )
        if method == "loss":
            return loss
        if many:
            y, scale = model.logits(double(rows))
            accuracy = _accuracy(y, scale, t, net.dtype)
            return accuracy if method == "accuracy" else (loss, accuracy)
        wants = _gradients(grads, net, rows, size)
        return wants if method == "gradient" else (loss, wants)

    judge.call(f"Network.{method}", getattr(net, method), given, oracle)


def _fits(t, N, C, single):
    if not N:
        raise Refusal(ValueError, "expected")
    if t.ndim == 1:
        if len(t) != N:
            raise Refusal(ValueError, "t")
    elif single:
        raise Refusal(ValueError, "t")
    elif t.shape != (N, C):
        raise Refusal(ValueError, "t", str(t.shape))


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


def _gradients(grads, net, rows, size):
    """Return what gradients must be near; at a kink of ReLU rounding decides."""
    if not all(np.isfinite(g).all() for g in grads.values()):
        return ANYTHING
    dtype = net.dtype
    if net.activation == "relu" and len(net.sizes) > 2 and dtype == np.float32:
        return ANYTHING if _near_kink(net, rows) else _wants(grads, dtype, size)
    return _wants(grads, dtype, size)


def _wants(grads, dtype, size):
    top = max((np.abs(g).max(initial=0) for g in grads.values()), default=0)
    return {
        key: Want(g, dtype, 256, (top + 1e-3) * min(size, 1e6)) for key, g in grads.items()
    }


def _near_kink(net, rows):
    model = Model(net.sizes, net.activation, 0.0).take(net.params)
    x, scale = double(rows), np.abs(double(rows))
    for i in range(1, len(net.sizes) - 1):
        W, b = model.params[f"W{i}"], model.params[f"b{i}"]
        x, scale = x @ W + b, scale @ np.abs(W) + np.abs(b)
        if (np.abs(x) < 1e-5 * scale + 1e-30).any():
            return True
        x = np.maximum(x, 0)
    return False


# --- gradients by differences --------------------------------------------------------------------


def differences(judge, r):
    """numerical_gradient, numerical_diff and gradient_descent of functions known by heart."""
    name = r.choice(("numerical_gradient", "numerical_gradient", "numerical_diff", "gradient_descent"))
    breaker = Breaker(r)
    if name == "numerical_diff":
        x = fixed("x", r.choice((0.5, -2, 3, np.float64(1.5))))
        judge.call(
            name, fastbp.numerical_diff, [fixed("f", _square), x],
            lambda f, x: Want(2 * x, np.float64, 2.0**30, 1.0), fresh=False,
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
    how = r.choice(("float32", "integers", "read-only", "list", "masked", "complex", "big-endian", "gaps", "None", "str"))
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
    (lambda x: int(5), np.zeros_like, True),
    (lambda x: x.reshape(-1)[:1], None, False),
    (lambda x: None, None, False),
    (lambda x: "1", None, False),
    (lambda x: [1.0, 2.0], None, False),
    (lambda x: 1j, None, False),
)


def network_differences(judge, r):
    """A network's numerical gradient against backpropagation in NumPy."""
    net, model = built(r, np.float64)
    breaker = Breaker(r)
    N = r.choice((1, 2, 5))
    x = breaker.array("", "x", breaker.floats(N, net.sizes[0]), net.dtype, special=False)
    t = breaker.targets("", N, net.sizes[-1])

    def oracle(x, t):
        single = x.ndim < 2
        rows = x.reshape(1, -1) if single else x.reshape(len(x), math.prod(x.shape[1:]))
        if rows.shape[1] != net.sizes[0]:
            raise Refusal(ValueError, str(x.shape))
        if not len(rows):
            raise Refusal(ValueError)
        _fits(t, len(rows), net.sizes[-1], single)
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


# --- optimizers ----------------------------------------------------------------------------------

RATES = {"SGD": (), "Momentum": ("momentum",), "Nesterov": ("momentum",), "AdaGrad": (),
         "RMSprop": ("decay_rate",), "Adam": ("beta1", "beta2")}


def optimizer(judge, r):
    """A rule, built and applied a few times."""
    name = r.choice(sorted(RATES))
    breaker = Breaker(r)
    given = [breaker.number("lr", 0.1, real(name, "lr", lambda v: 0 < v < math.inf))]
    given += [
        breaker.number(key, r.choice((0.9, 0.5)), real(name, key, lambda v: 0 <= v < 1))
        for key in RATES[name]
    ]
    rule = judge.call(name, getattr(fastbp, name), given, lambda *_: ANYTHING)
    if rule is None or not 1e-6 < rule.lr < 10:
        return
    model = getattr(reference, name)(*(g.value for g in given))
    dtype = r.choice((np.float32, np.float64))
    shapes = {"W1": r.choice(((3, 4), (1, 1), (17, 2), (0, 3))), "b1": (r.choice((1, 4, 33)),)}
    params = {key: breaker.floats(*shape, dtype=dtype) for key, shape in shapes.items()}
    wide = {key: double(p).copy() for key, p in params.items()}
    for _ in range(r.randrange(1, 5)):
        _update(judge, r, rule, model, params, wide)


def _update(judge, r, rule, model, params, wide):
    where = f"{type(rule).__name__}.update"
    breaker = Breaker(r)
    dtype = params["W1"].dtype
    refusal, how = None, "as it is"
    given = {
        key: breaker.array(where, key, breaker.floats(*p.shape, dtype=dtype), dtype, special=False)
        for key, p in params.items()
    }
    grads, passed = {key: g.object for key, g in given.items()}, dict(params)
    for key, g in given.items():
        if g.refusal is not None:
            refusal = g.refusal
        elif g.value.shape != params[key].shape:
            refusal = Refusal(ValueError, where, key, str(g.value.shape))
    if refusal is None and r.random() < 0.15:
        key = r.choice(sorted(params))
        how = r.choice(("no gradient", "read-only", "list", "integers", "masked", "None"))
        if how == "no gradient":
            del grads[key]
            refusal = Refusal(KeyError, where, key)
        else:
            passed[key] = {
                "read-only": lambda p: np.broadcast_to(p, p.shape),
                "list": lambda p: p.tolist(),
                "integers": lambda p: p.astype(int),
                "masked": np.ma.array,
                "None": lambda p: None,
            }[how](params[key])
            refusal = Refusal(TypeError, where, key)
    before = {key: p.copy() for key, p in params.items()}

    def oracle():
        if refusal is not None:
            raise refusal
        return None

    judge.call(where, lambda: rule.update(passed, grads), [], oracle)
    if refusal is None:
        model.update(wide, {key: double(g.value) for key, g in given.items()})
        want = {
            key: Want(w, dtype, 4096 if dtype == np.float32 else 64, 1 + np.abs(w))
            for key, w in wide.items()
        }
    else:
        want = {key: Want(p, dtype, 0) for key, p in before.items()}
    judge.call(f"{where} ({how}): params", lambda: params, [], lambda: want) if False else (
        judge._compare(f"{where} ({how}): params", params, want)
    )


# --- training ------------------------------------------------------------------------------------

FIT_OPTIMIZERS = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")


def fit(judge, r):
    """A short training of a small network, step by step beside NumPy."""
    net, model = built(r)
    breaker = Breaker(r)
    D, C, N = net.sizes[0], net.sizes[-1], r.choice((1, 3, 8, 20))
    x, dense = _training_inputs(breaker, r, N, D)
    t = breaker.targets("fit", N, C)
    name = r.choice(FIT_OPTIMIZERS)
    rule = getattr(fastbp, name)(0.01)
    limits = {
        "batch_size": breaker.number("batch_size", r.choice((1, 3, 100)), count("fit", "batch_size")),
        "threads": breaker.number("threads", 1 + (r.random() < 0.1), count("fit", "threads")),
        "evaluate_sample": breaker.number(
            "evaluate_sample", None, lambda v: v if v is None else count("fit", "evaluate_sample")(v)
        ),
        "seed": breaker.number("seed", 7, _seed),
        "sampling": breaker.number("sampling", r.choice(("shuffle", "choice")), _sampling),
        "optimizer": breaker.number("optimizer", rule, _fit_optimizer),
    }
    length = r.choice(("epochs", "iterations"))
    limits[length] = breaker.number(length, r.choice((1, 2)), _length(length))
    keywords = {key: g.object for key, g in limits.items()} | {
        "progress": False,
        "callbacks": [lambda report: report.step >= 6],
        "allow_nonfinite": r.random() < 0.05,
    }
    refusals = [g.refusal for g in limits.values() if g.refusal]
    start = {key: p.copy() for key, p in net.params.items()}

    def oracle(x, t):
        rows = dense if x is None else x
        if refusals:
            raise refusals[0]
        if rows.ndim < 2 or math.prod(rows.shape[1:]) != D or not len(rows):
            raise Refusal(ValueError, "fit", "x", str(rows.shape))
        _fits(t, len(rows), C, False)
        if not np.isfinite(rows).all() and not keywords["allow_nonfinite"]:
            bad = np.argwhere(~np.isfinite(rows.reshape(len(rows), -1)))[0]
            raise Refusal(ValueError, "fit", f"row {bad[0]}, column {bad[1]}")
        return ANYTHING

    given = [fixed("network", net), x, t]
    state = np.random.get_state() if limits["seed"].value is None else None
    history = judge.call(
        "fit", fastbp.fit, given, lambda net, x, t: oracle(x, t), keywords, fresh=False
    )
    if history is None:
        for key, p in start.items():
            if p.tobytes() != net.params[key].tobytes():
                raise Finding(f"fit: refused its arguments, but changed {key}: {given} {keywords}")
        return
    rows = dense if x.value is None else x.value
    del state
    if limits["seed"].value is None or not np.isfinite(rows).all():
        return
    _follow(judge, history, net, model, rows, t.value, limits, name)


def _follow(judge, history, net, model, rows, t, limits, name):
    """Train the model on the same batches, and compare losses and parameters."""
    N, steps = len(rows), len(history)
    size, seed = min(limits["batch_size"].value, N), limits["seed"].value
    rng = np.random.default_rng(operator.index(seed))
    if limits["sampling"].value == "shuffle":
        batches = []
        while len(batches) < steps:
            order = rng.permutation(N)
            batches += [order[i : i + size] for i in range(0, N, size)]
    else:
        batches = rng.integers(0, N, (steps, size))
    rule, losses = getattr(reference, name)(0.01), []
    x = double(rows).reshape(N, -1)
    kinks = False
    for batch in batches[:steps]:
        kinks = kinks or _kinks(model, x[batch])
        with np.errstate(over="ignore"):
            batch_losses, grads = model.losses(x[batch], t[batch])
        losses.append(batch_losses.mean() + model.penalty())
        rule.update(model.params, grads)
    if kinks and net.dtype == np.float32:
        return
    # Rules that divide by a gradient's size turn its rounding errors into steps of full length.
    loose = 2.0**40 if name in ("AdaGrad", "RMSprop", "Adam") else 2.0**14
    scale = 1 + np.abs(losses)
    bound = 2.0**14 * units(net.dtype)
    if name in ("AdaGrad", "RMSprop", "Adam"):
        bound = 2.0**48 if net.dtype == np.float32 else 2.0**34
        loose = 2.0**19 if net.dtype == np.float32 else 2.0**34
        if net.dtype == np.float32:
            return
    what = f"fit of {net!r} with {name}"
    judge._compare(f"{what}: losses", history.train_loss_list, Want(losses, np.float64, bound, scale))
    for key, p in model.params.items():
        judge._compare(f"{what}: {key}", net.params[key], Want(p, net.dtype, loose, 1 + np.abs(p)))


def _kinks(model, rows):
    class Plain:
        sizes, activation, params = model.sizes, model.activation, model.params

    return model.activation == "relu" and _near_kink(Plain, rows)


def _training_inputs(breaker, r, N, D):
    """Return x, and what it stands for when that is not its value: a matrix of SciPy."""
    x = breaker.floats(N, D)
    if r.random() < 0.5:
        x[breaker.rng.random(x.shape) < 0.8] = 0
    if r.random() < 0.25:
        return _sparse(breaker, r, x)
    if r.random() < 0.2:
        x = (np.abs(x) * 20).astype(np.uint8)
    given = breaker.array("fit", "x", x, np.float64)
    return given, None


def _sparse(breaker, r, x):
    kind = r.choice(("csr", "csc", "coo", "lil", "dok", "bsr", "dia"))
    maker = r.choice((scipy.sparse.csr_array, scipy.sparse.csr_matrix))
    matrix = maker(x).asformat(kind)
    given = Given("x", matrix, None, f"sparse {kind}")
    if not breaker._turn():
        return given, double(x)
    matrix = maker(np.where(x == 0, 1, x))
    given.object = matrix
    how = r.choice(("column", "negative", "starts", "falling", "short", "nan", "unsorted", "complex", "twice"))
    given.how = f"sparse, {how}"
    damaged = Refusal(ValueError, "fit", "x", "damaged")
    if how == "column":
        matrix.indices[-1] = r.choice((x.shape[1], 2**31 - 1))
        given.refusal = damaged
    elif how == "negative":
        matrix.indices[0] = -1
        given.refusal = damaged
    elif how == "starts":
        matrix.indptr[0] = 1
        given.refusal = damaged
    elif how == "falling":
        matrix.indptr[-1] = r.choice((-1, 2**31 - 1, -5))
        given.refusal = damaged
    elif how == "short":
        matrix.data = matrix.data[:-1]
        given.refusal = damaged
    elif how == "nan":
        matrix.data[0] = np.nan
        return given, matrix.toarray().astype(float)
    elif how == "complex":
        given.object = matrix.astype(complex)
        given.refusal = Refusal(TypeError, "fit", "x", "complex")
    elif how == "unsorted":
        matrix.indices[: matrix.indptr[1]] = matrix.indices[: matrix.indptr[1]][::-1].copy()
        matrix.has_sorted_indices = True  # a lie
        return given, matrix.toarray().astype(float)
    else:
        other = maker((np.ones(2 * len(x)), (np.repeat(np.arange(len(x)), 2), np.zeros(2 * len(x), int))), shape=x.shape)
        given.object = other
        return given, other.toarray()
    return given, None


def _seed(value):
    if value is None:
        return None
    try:
        if operator.index(value) >= 0:
            return value
    except TypeError:
        pass
    raise Refusal(ValueError, "fit", "seed")


def _sampling(value):
    if not isinstance(value, str) or value not in ("shuffle", "choice"):
        raise Refusal(ValueError, "fit", "sampling")
    return value


def _fit_optimizer(value):
    if value is not None and not isinstance(value, fastbp.optimizer.Optimizer):
        raise Refusal(TypeError, "fit", "optimizer")
    return value


def _length(name):
    def oracle(value):
        return None if value is None else count("fit", name)(value)

    return oracle


# --- files ---------------------------------------------------------------------------------------


def files(judge, r):
    """A network or an array that goes into a file and comes back."""
    if r.random() < 0.5:
        net, _ = built(r)
        path = judge.folder / "net.safetensors"
        judge.call("save_network", lambda: fastbp.save_network(path, net), [], lambda: None)
        want = {key: Want(p, p.dtype, 0) for key, p in net.params.items()}
        judge.call("load_network", lambda: fastbp.load_network(path)[0].params, [], lambda: want)
        return
    breaker = Breaker(r)
    path = judge.folder / "array.npy"
    x = breaker.array("", "x", breaker.floats(*r.choice([s for s in SHAPES if s])), special=True)
    if x.refusal is not None or not hasattr(x.object, "dtype") or x.object.dtype.metadata:
        return
    np.save(path, np.asarray(x.object))

    def oracle():
        stored = np.asarray(x.object)
        if not stored.size or not np.isfinite(stored).all():
            raise Refusal(fastbp.DatasetError, "array.npy")
        if stored.dtype == np.uint8:
            return Want(stored / 255, np.float32, 1)
        double_ = stored.dtype.kind == "f" and stored.dtype.itemsize == 8
        dtype = np.float64 if double_ else np.float32
        return Want(stored.astype(dtype), dtype, 0)

    judge.call("load_npy", lambda: fastbp.dataset.load_npy(path), [], oracle)


def threads(judge, r):
    """set_num_threads, which is put back."""
    before = fastbp.get_num_threads()
    breaker = Breaker(r)
    most = fastbp.threads.available_cpus()

    def oracle(value):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not 1 <= value <= most:
            raise Refusal(ValueError, "set_num_threads", "n")
        return value

    n = breaker.number("n", r.randrange(1, most + 1), oracle)
    judge.call("set_num_threads", fastbp.set_num_threads, [n], lambda n: None)
    if before <= most:
        fastbp.set_num_threads(before)


CALLS = {
    construct: 6,
    network: 6,
    differences: 8,
    network_differences: 1,
    optimizer: 6,
    fit: 1.5,
    files: 1,
    threads: 0.05,
}
