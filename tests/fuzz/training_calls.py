"""Generated calls of optimizers and of fit, which are followed step by step in NumPy."""

import math
import operator

import numpy as np
import scipy.sparse

import fastbp

from .arguments import Breaker, count, fixed, real
from .judge import ANYTHING, Finding, Given, Refusal, Want
from .losses import double
from .model import built, near_kink, require_fitting, rule_like, units

# --- optimizers ----------------------------------------------------------------------------------

RATES = {
    "SGD": (),
    "Momentum": ("momentum",),
    "Nesterov": ("momentum",),
    "AdaGrad": (),
    "RMSprop": ("decay_rate",),
    "Adam": ("beta1", "beta2"),
}


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
    model = rule_like(name, *(g.value for g in given))
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
        return

    judge.call(where, lambda: rule.update(passed, grads), [], oracle)
    if refusal is None:
        model.update(wide, {key: double(g.value) for key, g in given.items()})
        # Rules that divide by the size of a gradient enlarge its rounding errors.
        units = 2**13 if dtype == np.float32 else 2**16
        want = {key: Want(w, dtype, units, 1 + np.abs(w)) for key, w in wide.items()}
    else:
        want = {key: Want(p, dtype, 0) for key, p in before.items()}
    judge.compare(f"{where} ({how}): params", params, want)


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
        "batch_size": breaker.number(
            "batch_size", r.choice((1, 3, 100)), count("fit", "batch_size")
        ),
        "threads": breaker.number("threads", 1 + (r.random() < 0.1), _none_or_count("threads")),
        "evaluate_sample": breaker.number(
            "evaluate_sample", None, _none_or_count("evaluate_sample")
        ),
        "seed": breaker.number("seed", 7, _seed),
        "sampling": breaker.number("sampling", r.choice(("shuffle", "choice")), _sampling),
        "optimizer": breaker.number("optimizer", rule, _fit_optimizer),
    }
    length = r.choice(("epochs", "iterations"))
    limits[length] = breaker.number(length, r.choice((1, 2)), _none_or_count(length))
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
        require_fitting(t, len(rows), C, False)
        if not np.isfinite(rows).all() and not keywords["allow_nonfinite"]:
            bad = np.argwhere(~np.isfinite(rows.reshape(len(rows), -1)))[0]
            raise Refusal(ValueError, "fit", f"row {bad[0]}, column {bad[1]}")
        return ANYTHING

    given = [fixed("network", net), x, t]
    history = judge.call(
        "fit", fastbp.fit, given, lambda net, x, t: oracle(x, t), keywords, fresh=False
    )
    if history is None:
        for key, p in start.items():
            if p.tobytes() != net.params[key].tobytes():
                raise Finding(f"fit: refused its arguments, but changed {key}: {given} {keywords}")
        return
    rows = dense if x.value is None else x.value
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
    if limits["optimizer"].value is None:
        name, lr = "SGD", 0.1  # fit's own
    else:
        lr = 0.01
    rule, losses = rule_like(name, lr), []
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
    bound = 2.0**14
    if name in ("AdaGrad", "RMSprop", "Adam"):
        # A gradient that is nothing but a rounding error becomes a step of full length.
        if net.dtype == np.float32:
            return
        bound = 2.0**34
    loss_bound, scale = bound * units(net.dtype), 1 + np.abs(losses)
    what = f"fit of {net!r} with {name}"
    judge.compare(
        f"{what}: losses", history.train_loss_list, Want(losses, np.float64, loss_bound, scale)
    )
    for key, p in model.params.items():
        judge.compare(f"{what}: {key}", net.params[key], Want(p, net.dtype, bound, 1 + np.abs(p)))


def _kinks(model, rows):
    class Plain:
        sizes, activation, params = model.sizes, model.activation, model.params

    return model.activation == "relu" and near_kink(Plain, rows)


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
    how = r.choice(
        ("column", "negative", "starts", "falling", "short", "nan", "unsorted", "complex", "twice")
    )
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
        other = maker(
            (np.ones(2 * len(x)), (np.repeat(np.arange(len(x)), 2), np.zeros(2 * len(x), int))),
            shape=x.shape,
        )
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


def _none_or_count(name):
    def oracle(value):
        return None if value is None else count("fit", name)(value)

    return oracle


CALLS = {optimizer: 6, fit: 1.5}
