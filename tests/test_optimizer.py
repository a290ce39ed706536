import copy
import inspect
import pickle

import numpy as np
import pytest

import fastbp
from fastbp import optimizer as ours
from fastbp import reference
from fastbp._memory import CACHE_LINE

RULES = {
    "SGD": [{}, {"lr": 0.3}],
    "Momentum": [{}, {"lr": 0.3, "momentum": 0.5}, {"momentum": 0.0}],
    "Nesterov": [{}, {"lr": 0.3, "momentum": 0.5}, {"momentum": 0.0}],
    "AdaGrad": [{}, {"lr": 0.3}],
    "RMSprop": [{}, {"lr": 0.3, "decay_rate": 0.5}, {"decay_rate": 0.0}],
    "Adam": [{}, {"lr": 0.3, "beta1": 0.5, "beta2": 0.75}, {"beta1": 0.0}],
}
CASES = [(name, kwargs) for name, table in RULES.items() for kwargs in table]
SHAPES = {"W1": (7, 5), "b1": (5,), "W2": (17, 33), "b2": (1,), "empty": (0, 3), "number": ()}

every_rule = pytest.mark.parametrize("name", RULES)
every_case = pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)


def new(name, **kwargs):
    return getattr(ours, name)(**kwargs)


def arrays(seed, dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {key: np.array(rng.normal(size=shape), dtype) for key, shape in shapes.items()}


def steps(optimizer, params, count=20, dtype=np.float64):
    shapes = {key: p.shape for key, p in params.items()}
    for seed in range(1, count + 1):
        optimizer.update(params, arrays(seed, dtype, shapes))
    return params


def bits(params):
    return {key: np.asarray(p).tobytes() for key, p in params.items()}


def assert_close(actual, expected, tolerance=1e-12):
    """Compare within tolerance times the largest expected value."""
    for key in expected:
        error = np.max(np.abs(actual[key] - expected[key]), initial=0)
        assert error <= tolerance * np.max(np.abs(expected[key]), initial=0), key


# --- the rules -----------------------------------------------------------------------------------


@every_case
def test_twenty_steps_equal_the_reference(name, kwargs):
    expected = steps(getattr(reference, name)(**kwargs), arrays(0))
    assert_close(steps(new(name, **kwargs), arrays(0)), expected)


@every_case
def test_twenty_steps_in_float32_come_near_the_float64_reference(name, kwargs):
    expected = steps(getattr(reference, name)(**kwargs), arrays(0))
    actual = steps(new(name, **kwargs), arrays(0, np.float32), dtype=np.float32)
    assert {p.dtype for p in actual.values()} == {np.dtype(np.float32)}
    assert_close(actual, expected, 1e-4)


@every_rule
def test_every_number_of_elements_is_updated_whole(name):
    shapes = {str(n): (n,) for n in range(1, 70)}
    expected = steps(getattr(reference, name)(), arrays(0, shapes=shapes), 2)
    assert_close(steps(new(name), arrays(0, shapes=shapes), 2), expected)


@every_rule
def test_defaults_are_the_books(name):
    theirs = inspect.signature(getattr(reference, name)).parameters
    mine = inspect.signature(getattr(ours, name)).parameters
    assert {k: p.default for k, p in mine.items()} == {k: p.default for k, p in theirs.items()}


@every_rule
def test_a_learning_rate_changed_between_updates_counts(name):
    results = []
    for module in (ours, reference):
        optimizer, params = getattr(module, name)(lr=0.1), arrays(0)
        optimizer.update(params, arrays(1))
        optimizer.lr = 0.002
        optimizer.update(params, arrays(2))
        results.append(params)
    assert_close(*results)


@every_rule
def test_a_zero_gradient_moves_nothing_at_the_first_step(name):
    params = arrays(0)
    before = bits(params)
    new(name).update(params, {key: np.zeros_like(p) for key, p in params.items()})
    assert bits(params) == before


@every_rule
def test_a_nan_gradient_spoils_its_own_element_only(name):
    params, grads = {"W": np.ones(40)}, {"W": np.ones(40)}
    grads["W"][13] = np.nan
    new(name).update(params, grads)
    assert list(np.flatnonzero(np.isnan(params["W"]))) == [13]


@every_rule
def test_training_with_it_lowers_the_loss(name):
    net = fastbp.TwoLayerNet(6, 8, 3, 0.5, seed=0)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(30, 6)), rng.integers(0, 3, 30)
    optimizer, before = new(name), net.loss(x, t)
    for _ in range(20):
        optimizer.update(net.params, net.gradient(x, t))
    assert net.loss(x, t) < before


def test_optimizers_are_found_by_the_names_of_the_command_line():
    assert {key: rule.__name__ for key, rule in ours.OPTIMIZERS.items()} == {
        name.lower(): name for name in RULES
    }


# --- in place, in any layout ---------------------------------------------------------------------


@every_rule
def test_parameters_are_changed_in_place(name):
    params = arrays(0)
    same = dict(params)
    new(name).update(params, arrays(1))
    assert all(params[key] is same[key] for key in same)


def strided(a):
    base = np.full((2 * a.shape[0], 3 * a.shape[1]), 9.0)
    base[::2, 1::3] = a
    return base[::2, 1::3]


def columns(a):
    base = np.full((a.shape[0], a.shape[1] + 4), 9.0)
    base[:, 2:-2] = a
    return base[:, 2:-2]


def misaligned(a):
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: a.T.copy().T,
    "gaps": strided,
    "columns of a larger array": columns,
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "misaligned": misaligned,
    "big-endian": lambda a: a.astype(">f8"),
    "matrix": np.asmatrix,
}


@every_rule
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_parameters_in_any_layout_are_updated_right(name, layout):
    shapes = {"W": (7, 5)}
    expected = steps(getattr(reference, name)(), arrays(0, shapes=shapes), 3)
    view = LAYOUTS[layout](arrays(0, shapes=shapes)["W"])
    steps(new(name), {"W": view}, 3)
    assert_close({"W": np.asarray(view)}, expected)


@every_rule
@pytest.mark.parametrize("layout", [strided, columns])
def test_what_lies_between_the_elements_of_a_view_is_left_alone(name, layout):
    view = layout(np.full((7, 5), 1.0))
    steps(new(name), {"W": view}, 3)
    base = view.base
    assert np.count_nonzero(base == 9.0) == base.size - view.size


@every_rule
@pytest.mark.parametrize("layout", [*LAYOUTS, "float32", "read-only"])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_gradients_may_have_any_layout_and_are_never_written_to(name, layout):
    params, grad = {"W": np.ones((7, 5))}, np.linspace(-1, 1, 35, dtype="f4").reshape(7, 5)
    expected = {"W": np.ones((7, 5))}
    getattr(reference, name)().update(expected, {"W": grad.astype(np.float64)})
    other = grad.copy() if layout == "float32" else grad.astype(np.float64)
    other = LAYOUTS.get(layout, np.asarray)(other)
    before = other.tobytes()
    other.flags.writeable = layout != "read-only"
    new(name).update(params, {"W": other})
    assert_close(params, expected)
    assert other.tobytes() == before


@every_rule
@pytest.mark.parametrize("grad", [[[1, -2, 3]], np.array([[1, -2, 3]], np.int8)], ids=type)
def test_gradients_may_be_integers(name, grad):
    params, expected = {"W": np.ones((1, 3))}, {"W": np.ones((1, 3))}
    new(name).update(params, {"W": grad})
    getattr(reference, name)().update(expected, {"W": np.array(grad, float)})
    assert_close(params, expected)


# --- what is refused, and that nothing has changed then ------------------------------------------


def locked(a):
    a.flags.writeable = False
    return a


ONES = np.ones((2, 3))
BAD = {
    "no gradient": (ONES.copy(), None, KeyError, "W2"),
    "gradient of another shape": (ONES.copy(), np.ones((3, 2)), ValueError, r"\(3, 2\).*\(2, 3\)"),
    "gradient that would broadcast": (ONES.copy(), np.ones((1, 3)), ValueError, r"\(1, 3\)"),
    "a number as gradient": (ONES.copy(), 1.0, ValueError, r"\(\)"),
    "complex gradient": (ONES.copy(), ONES.astype(complex), TypeError, "complex128"),
    "masked gradient": (ONES.copy(), np.ma.masked_equal(np.eye(2, 3), 1), TypeError, "mask"),
    "gradient of objects": (ONES.copy(), np.full((2, 3), None), TypeError, "object"),
    "read-only parameter": (locked(ONES.copy()), ONES, TypeError, "read-only"),
    "integer parameter": (np.ones((2, 3), int), ONES, TypeError, "int64"),
    "float16 parameter": (np.ones((2, 3), np.float16), ONES, TypeError, "float16"),
    "list as parameter": ([[1.0] * 3] * 2, ONES, TypeError, "list"),
    "masked parameter": (np.ma.masked_equal(np.eye(2, 3), 1), ONES, TypeError, "[Mm]ask"),
}


def refuse(name, case):
    """Update a good parameter and after it a bad one; return both, the optimizer and the error."""
    bad, grad, error, message = copy.deepcopy(BAD[case])
    if case == "read-only parameter":
        locked(bad)
    params = {"W1": np.ones((4, 4)), "W2": bad}
    grads = {"W1": np.ones((4, 4))} | ({} if grad is None else {"W2": grad})
    optimizer = new(name)
    with pytest.raises(error, match=message):
        optimizer.update(params, grads)
    return params, optimizer


@every_rule
@pytest.mark.parametrize("case", BAD)
def test_a_bad_parameter_or_gradient_leaves_every_parameter_as_it_was(name, case):
    params, _ = refuse(name, case)
    np.testing.assert_array_equal(params["W1"], np.ones((4, 4)))


@every_rule
@pytest.mark.parametrize("case", BAD)
def test_a_refused_update_leaves_the_optimizer_as_it_was(name, case):
    params, optimizer = refuse(name, case)
    params, fresh = {"W1": params["W1"]}, {"W1": params["W1"].copy()}
    optimizer.update(params, {"W1": np.full((4, 4), 0.5)})
    new(name).update(fresh, {"W1": np.full((4, 4), 0.5)})
    assert bits(params) == bits(fresh)


@every_rule
def test_the_message_names_the_optimizer_and_the_key(name):
    with pytest.raises(ValueError, match=rf"{name}\.update: grads\['b2'\] has shape \(3,\)"):
        new(name).update({"b2": np.ones(4)}, {"b2": np.ones(3)})


NOT_RATES = [0, -0.1, np.nan, np.inf, True, "0.1", None, [0.1], 1j]
NOT_DECAYS = [-0.1, 1, 1.5, np.nan, np.inf, True, "0.9", None, [0.9], 1j]


@every_rule
@pytest.mark.parametrize("value", NOT_RATES, ids=repr)
def test_a_bad_learning_rate_is_named(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name}: lr is"):
        new(name, lr=value)


@pytest.mark.parametrize("value", NOT_DECAYS, ids=repr)
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("Momentum", "momentum"),
        ("Nesterov", "momentum"),
        ("RMSprop", "decay_rate"),
        ("Adam", "beta1"),
        ("Adam", "beta2"),
    ],
)
def test_a_bad_share_of_the_past_is_named(name, argument, value):
    with pytest.raises((TypeError, ValueError), match=f"{name}: {argument} is"):
        new(name, **{argument: value})


def test_hyperparameters_may_be_numpy_numbers():
    optimizer = ours.Adam(np.float32(0.5), np.float64(0.25), np.float16(0.5))
    assert (optimizer.lr, optimizer.beta1, optimizer.beta2) == (0.5, 0.25, 0.5)


# --- the state -----------------------------------------------------------------------------------

SLOTS = [
    ("Momentum", "v"),
    ("Nesterov", "v"),
    ("AdaGrad", "h"),
    ("RMSprop", "h"),
    ("Adam", "m"),
    ("Adam", "v"),
]
every_slot = pytest.mark.parametrize(("name", "slot"), SLOTS)


@every_slot
def test_every_parameter_has_state_of_its_own_shape_and_type(name, slot):
    params = {"W1": np.ones((3, 4)), "b1": np.ones(4, np.float32)}
    optimizer = new(name)
    optimizer.update(params, {"W1": np.ones((3, 4)), "b1": np.ones(4)})
    state = getattr(optimizer, slot)
    assert {k: (s.shape, s.dtype) for k, s in state.items()} == {
        k: (p.shape, p.dtype) for k, p in params.items()
    }


@every_slot
def test_state_begins_on_a_cache_line(name, slot):
    optimizer = new(name)
    for elements in (1, 10, 784 * 50, 784 * 512):
        params = {"W": np.ones(elements)}
        optimizer.update(params, params)
        assert getattr(optimizer, slot)["W"].ctypes.data % CACHE_LINE == 0


@every_slot
def test_the_state_equals_the_reference(name, slot):
    mine, theirs = new(name), getattr(reference, name)()
    steps(mine, arrays(0))
    steps(theirs, arrays(0))
    assert_close(getattr(mine, slot), getattr(theirs, slot))


@every_slot
def test_there_is_no_state_before_the_first_update(name, slot):
    assert getattr(new(name), slot) == {}


@every_slot
def test_a_parameter_that_comes_later_begins_with_fresh_state(name, slot):
    optimizer = new(name)
    optimizer.update({"W1": np.ones(3)}, {"W1": np.ones(3)})
    optimizer.update(
        {"W1": np.ones(3), "W2": np.ones(3)}, {"W1": np.ones(3), "W2": np.full(3, 2.0)}
    )
    once = new(name)
    once.update({"W2": np.ones(3)}, {"W2": np.full(3, 2.0)})
    np.testing.assert_array_equal(getattr(optimizer, slot)["W2"], getattr(once, slot)["W2"])


@every_slot
@pytest.mark.parametrize("p", [np.ones((5, 2)), np.ones((2, 3), "f4")], ids=["shape", "type"])
def test_a_parameter_replaced_by_another_kind_begins_with_fresh_state(name, slot, p):
    optimizer = new(name)
    optimizer.update({"W": np.ones((2, 3))}, {"W": np.ones((2, 3))})
    optimizer.update({"W": p.copy()}, {"W": np.full(p.shape, 2.0)})
    once = new(name)
    once.update({"W": p.copy()}, {"W": np.full(p.shape, 2.0)})
    np.testing.assert_array_equal(getattr(optimizer, slot)["W"], getattr(once, slot)["W"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_without_a_memory_sees_a_small_gradient_after_a_large_one(dtype):
    params, adam = {"W": np.zeros(1, dtype)}, ours.Adam(lr=0.1, beta1=0.0, beta2=0.0)
    adam.update(params, {"W": np.full(1, 50, dtype)})
    before = params["W"].copy()
    adam.update(params, {"W": np.full(1, 1e-3, dtype)})
    np.testing.assert_allclose(params["W"] - before, -0.1, rtol=1e-3)


def test_adam_counts_updates_not_parameters():
    optimizer = ours.Adam()
    steps(optimizer, arrays(0), 3)
    assert optimizer.iter == 3


@every_rule
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_where_the_original_was(name, copied):
    optimizer, params = new(name), arrays(0)
    steps(optimizer, params, 3)
    other, same = copied(optimizer), copy.deepcopy(params)
    optimizer.update(params, arrays(9))
    other.update(same, arrays(9))
    assert bits(params) == bits(same)


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (ours.SGD(), "SGD(lr=0.01)"),
        (ours.Momentum(0.5, 0.25), "Momentum(lr=0.5, momentum=0.25)"),
        (ours.RMSprop(), "RMSprop(lr=0.01, decay_rate=0.99)"),
        (ours.Adam(), "Adam(lr=0.001, beta1=0.9, beta2=0.999)"),
    ],
)
def test_repr_says_rule_and_hyperparameters(optimizer, text):
    assert repr(optimizer) == text


@pytest.mark.parametrize("odd", [np.asfortranarray, lambda v: v.astype(">f8")])
def test_state_in_any_layout_is_used_and_kept(odd):
    plain, other = fastbp.Momentum(lr=0.1), fastbp.Momentum(lr=0.1)
    params = [{"W": np.ones((3, 4))} for _ in range(2)]
    grads = {"W": np.arange(12.0).reshape(3, 4)}
    other.v["W"] = odd(np.zeros((3, 4)))
    for _ in range(3):
        plain.update(params[0], grads)
        other.update(params[1], grads)
    np.testing.assert_array_equal(params[0]["W"], params[1]["W"])


@pytest.mark.parametrize("lr", [10**400, True, None, 1j, "0.1", np.nan, np.inf, 0])
def test_a_learning_rate_that_no_float_holds_is_a_value_error(lr):
    with pytest.raises(ValueError, match="SGD: lr is"):
        fastbp.SGD(lr)
