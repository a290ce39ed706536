"""What a network computes in the compiled loop: gradients, evaluation, prediction; who may call."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from by_layers import ByLayers, bits, build, examples

import fastbp
from fastbp import TwoLayerNet, fit
from fastbp.examples import is_mostly_zeros
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.plan import Plan

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="the loop is compiled, or takes minutes")
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
SIZES = {
    "64-50-10": (64, 50, 10),
    "784-50-10": (784, 50, 10),
    "784-512-256-10": (784, 512, 256, 10),
    "64-10": (64, 10),
    "7-9-3": (7, 9, 3),
    "five layers": (20, 30, 25, 40, 13, 5),
}
every_net = pytest.mark.parametrize("name", SIZES)
KINDS = ("dense", "sparse", "bytes", "one-hot", "soft", "Fortran")
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-4}


def twins(name, **options):
    """Return a network for the compiled loop, and one with the same parameters for the layers."""
    return build(SIZES[name], **options), build(SIZES[name], cls=ByLayers, **options)


def inputs(name, kind="dense", N=250):
    x, t = examples(SIZES[name][0], SIZES[name][-1], kind, N)
    return (x // 40 if kind == "bytes" else x), t


def assert_gradients_near(actual, expected, relative):
    assert actual.keys() == expected.keys()
    for key, g in expected.items():
        assert (actual[key].shape, actual[key].dtype) == (g.shape, g.dtype)
        bound = relative * np.abs(g).max()
        np.testing.assert_allclose(actual[key], g, rtol=0, atol=bound, err_msg=key)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.3], ids=["no decay", "decay"])
@pytest.mark.parametrize("rows", [16, 17, 100, 252, 253, 600])
@every_net
@both_types
def test_gradients_are_those_of_the_layers(dtype, name, rows, decay):
    net, layers = twins(name, decay=decay, dtype=dtype)
    x, t = inputs(name, N=rows)
    loss, grads = net.loss_and_gradient(x, t)
    expected_loss, expected = layers.loss_and_gradient(x, t)
    assert loss == pytest.approx(expected_loss, rel=TOLERANCE[dtype])
    assert_gradients_near(grads, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("rows", [16, 100, 253])
@every_net
@both_types
def test_gradients_of_batches_that_are_mostly_zeros_are_those_of_the_layers(
    dtype, name, rows, threads
):
    net, layers = twins(name, decay=0.1, dtype=dtype)
    x, t = inputs(name, "sparse", N=rows)
    assert is_mostly_zeros(x)
    for batch in (x, x[::-1], 2 * x):  # what was compressed before is gone
        assert_gradients_near(net.gradient(batch, t), layers.gradient(batch, t), TOLERANCE[dtype])


@pytest.mark.parametrize("rows", [253, 300, 5000])
@every_net
@both_types
def test_examples_that_are_mostly_zeros_are_measured_as_by_the_layers(dtype, name, rows, threads):
    net, layers = twins(name, dtype=dtype)
    x, t = inputs(name, "sparse", N=rows)
    assert is_mostly_zeros(x)
    expected = layers.predict(x)
    bound = TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(net.predict(x), expected, rtol=0, atol=bound)
    loss, accuracy = net.evaluate(x, t)
    assert loss == pytest.approx(layers.evaluate(x, t)[0], rel=TOLERANCE[dtype])
    assert accuracy == np.mean(net.predict(x).argmax(axis=1) == t)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("targets", ["labels", "one-hot", "soft"])
def test_zeros_may_be_skipped_beside_any_targets(targets, activation, threads):
    net, layers = (
        build((300, 40, 7), activation, cls=cls) for cls in (fastbp.MultiLayerNet, ByLayers)
    )
    x, labels = examples(300, 7, "sparse", 300)
    t = labels if targets == "labels" else examples(300, 7, targets, 300)[1]
    assert is_mostly_zeros(x)
    assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), 1e-12)
    for eps in (0.0, 1e-7):
        net.last_layer.eps = layers.last_layer.eps = eps
        assert net.evaluate(x, t) == pytest.approx(layers.evaluate(x, t), rel=1e-12)


def test_batches_with_and_without_zeros_may_take_turns(threads):
    net, layers = twins("784-50-10")
    for kind in ("sparse", "dense", "sparse", "bytes", "dense", "sparse"):
        x, t = inputs("784-50-10", kind, N=300)
        assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), 1e-12)
        assert net.evaluate(x, t) == pytest.approx(layers.evaluate(x, t), rel=1e-12)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@every_net
@both_types
def test_nothing_is_written_around_the_users_arrays(dtype, name, kind, threads, monkeypatch):
    """Compiled code has weights and gradients by their addresses, which nobody checks."""
    wholes = []

    def guarded(array):
        whole = np.full(array.size + 128, 777, dtype)
        wholes.append(whole)
        inside = whole[64:-64].reshape(array.shape)
        inside[...] = array
        return inside

    empty_params = Plan.empty_params
    monkeypatch.setattr(
        Plan, "empty_params", lambda plan: {k: guarded(g) for k, g in empty_params(plan).items()}
    )
    net, layers = twins(name, decay=0.1, dtype=dtype)
    for key, p in net.params.items():
        net.params[key] = guarded(p)
    x, t = inputs(name, kind, N=100)
    assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), TOLERANCE[dtype])
    assert len(wholes) == 2 * len(net.params)
    for whole in wholes:
        assert (np.r_[whole[:64], whole[-64:]] == 777).all()


@pytest.mark.parametrize("cause", ["b1", "b2", "inf in b2", "overflow", "NaN in x", "inf in x"])
def test_what_is_not_finite_spreads_where_the_input_is_zero_too(cause):
    net, layers = twins("784-50-10")
    x, t = inputs("784-50-10", "sparse", N=100)
    for network in (net, layers):
        if cause[-2:] in ("b1", "b2"):
            network.params[cause[-2:]][3] = np.inf if "inf" in cause else np.nan
        if cause == "overflow":
            network.params["W1"] *= 1e200
            network.params["W2"] *= 1e200
    if cause.endswith("x"):
        x[5, 400] = float(cause[:3])
    with np.errstate(all="ignore"):
        grads, expected = net.gradient(x, t), layers.gradient(x, t)
    for key, g in expected.items():
        np.testing.assert_array_equal(np.isnan(grads[key]), np.isnan(g), err_msg=key)


def test_parameters_exchanged_while_targets_are_read_are_refused():
    net = build(SIZES["64-50-10"])
    x, t = inputs("64-50-10")

    class Targets:
        def __array__(self, dtype=None, copy=None):
            net.params["W1"] = np.zeros((1, 1))
            return t

    with pytest.raises(ValueError, match=r"W1 has shape \(1, 1\), expected \(64, 50\)"):
        net.gradient(x, Targets())


@every_net
@both_types
def test_of_equal_logits_the_first_is_the_answer(dtype, name):
    net = build(SIZES[name], dtype=dtype)
    x, t = inputs(name, N=300)
    last = len(SIZES[name]) - 1
    net.params[f"W{last}"][...] = 0
    assert net.accuracy(x, t) == np.mean(t == 0)
    net.params[f"b{last}"][1:] = 1
    assert net.accuracy(x, t) == np.mean(t == 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 783])
def test_weights_that_are_not_finite_count_where_the_input_is_zero_too(row, value):
    net, layers = twins("784-50-10")
    x, t = inputs("784-50-10", "sparse", N=100)
    x[:, row] = 0  # times which infinity is NaN
    expected = net.gradient(x, t)
    for network in (net, layers):
        network.params["W1"][row, 3] = value
    with np.errstate(invalid="ignore"):
        (loss, grads), (_, other) = (n.loss_and_gradient(x, t) for n in (net, layers))
        y = net.predict(np.tile(x, (3, 1)))
        assert np.isnan(net.evaluate(x, t)[0])
    assert np.isnan(loss)
    assert np.isnan(y).all()
    for key, g in other.items():
        np.testing.assert_array_equal(np.isnan(grads[key]), np.isnan(g), err_msg=key)
    net.params["W1"][row, 3] = 0.0
    layers.params["W1"][row, 3] = 0.0
    assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), 1e-12)
    assert not any(np.isnan(g).any() for g in expected.values())


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_inputs_of_any_kind_are_those_of_the_layers(kind, activation):
    for name in ("64-50-10", "784-50-10"):
        net, layers = twins(name, activation=activation)
        x, t = inputs(name, kind)
        assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), 1e-12)


@every_net
def test_the_books_addend_in_the_logarithm_counts(name):
    net, layers = twins(name)
    for network in (net, layers):
        network.last_layer.eps = 0.01
    for kind in ("dense", "soft"):
        x, t = inputs(name, kind)
        assert net.loss_and_gradient(x, t)[0] == pytest.approx(layers.loss(x, t), rel=1e-12)
        assert net.evaluate(x, t)[0] == pytest.approx(layers.loss(x, t), rel=1e-12)


@pytest.mark.parametrize("where", ["x", "t", "both"])
@pytest.mark.parametrize("kind", ["dense", "bytes", "soft"])
def test_read_only_examples_will_do(kind, where):
    net = build(SIZES["64-50-10"])
    x, t = inputs("64-50-10", kind)
    expected, trained = net.gradient(x, t), copy.deepcopy(net)
    fit(trained, x, t, epochs=1, seed=0)
    for a in {"x": [x], "t": [t], "both": [x, t]}[where]:
        a.flags.writeable = False
    assert_gradients_near(net.gradient(x, t), expected, 0)
    fit(net, x, t, epochs=1, seed=0)
    assert bits(net) == bits(trained)


@both_types
def test_every_gradient_is_in_new_arrays(dtype):
    net = build(SIZES["64-50-10"], dtype=dtype)
    x, t = inputs("64-50-10")
    first = net.gradient(x, t)
    kept = {key: g.copy() for key, g in first.items()}
    second = net.gradient(x[::-1], t[::-1])
    net.gradient(2 * x, t)
    for key, g in first.items():
        assert g.flags.c_contiguous
        assert g.flags.owndata
        np.testing.assert_array_equal(g, kept[key])
        assert not np.shares_memory(g, second[key])
        assert not np.shares_memory(g, net.params[key])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_callers_is_written(kind):
    net = build(SIZES["64-50-10"], decay=0.1)
    x, t = inputs("64-50-10", kind)
    before = x.tobytes(), t.tobytes(), bits(net)
    net.gradient(x, t)
    net.evaluate(x, t)
    net.accuracy(x, t)
    net.predict(np.tile(x, (3, 1)))
    assert (x.tobytes(), t.tobytes(), bits(net)) == before


def test_the_layers_have_the_gradients_too():
    net = build(SIZES["64-50-10"])
    grads = net.gradient(*inputs("64-50-10"))
    assert net.layers["Affine1"].dW is grads["W1"]
    assert net.layers["Affine2"].db is grads["b2"]


# --- evaluation and prediction -------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 5, 6, 251, 252, 253, 1000, 4032, 4033])
@pytest.mark.parametrize("kind", ["dense", "bytes", "soft"])
def test_evaluation_is_that_of_the_layers(kind, rows):
    net, layers = twins("64-50-10", decay=0.1)
    x, t = inputs("64-50-10", kind, rows)
    loss, accuracy = net.evaluate(x, t)
    expected = layers.evaluate(x, t)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert accuracy == expected[1]


@pytest.mark.parametrize("rows", [255, 256, 257, 504, 4032, 4033, 9000])
@pytest.mark.parametrize("kind", ["dense", "bytes", "Fortran"])
@both_types
def test_prediction_is_that_of_the_layers(dtype, kind, rows):
    net, layers = twins("64-50-10", dtype=dtype)
    x, _ = inputs("64-50-10", kind, rows)
    y, expected = net.predict(x), layers.predict(x)
    bound = TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=bound)
    assert (y.dtype, y.flags.owndata) == (dtype, True)


@every_net
def test_a_prediction_does_not_depend_on_the_examples_around_it(name):
    net = build(SIZES[name])
    x, _ = inputs(name, N=700)
    whole = net.predict(x)
    for piece in (slice(0, 256), slice(1, 600), slice(300, 700), slice(13, 400)):
        np.testing.assert_array_equal(net.predict(x[piece]), whole[piece])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_example_that_is_not_finite_is_one_row_of_the_prediction(value):
    net = build(SIZES["64-50-10"])
    x, _ = inputs("64-50-10", N=300)
    expected = net.predict(x)
    x[100, 3] = value
    y = net.predict(x)
    assert not np.isfinite(y[100]).all()
    np.testing.assert_array_equal(np.delete(y, 100, 0), np.delete(expected, 100, 0))


def test_of_equal_logits_the_first_counts():
    net = build(SIZES["64-50-10"])
    for p in net.params.values():
        p[...] = 0
    x, _ = inputs("64-50-10")
    assert net.accuracy(x, np.zeros(250, int)) == 1
    assert net.accuracy(x, np.ones(250, int)) == 0


# --- a network that changes ----------------------------------------------------------------------


def test_parameters_count_as_they_are_now():
    net, layers = twins("64-50-10", decay=0.1)
    x, t = inputs("64-50-10", N=300)

    def compare():
        assert net.evaluate(x, t)[0] == pytest.approx(layers.evaluate(x, t)[0], rel=1e-12)
        assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), 1e-12)
        np.testing.assert_allclose(net.predict(x), layers.predict(x), rtol=1e-9)

    compare()
    for network in (net, layers):
        network.params["W1"] *= 1.5  # in place
    compare()
    for network in (net, layers):
        network.params["W2"] = 0.5 * network.params["W2"]  # another array
    compare()
    for network in (net, layers):
        network.params["W1"] = np.asfortranarray(network.params["W1"])
        network.params["b1"] = np.linspace(-1, 1, 100)[::2]
    compare()


def test_evaluation_right_after_an_array_is_replaced_has_its_decay():
    net = build(SIZES["64-50-10"], decay=0.1)
    x, t = inputs("64-50-10")
    net.evaluate(x, t)
    for key in ("W1", "W2"):
        net.params[key] = 3 * net.params[key]
    assert net.evaluate(x, t)[0] == pytest.approx(net.loss(x, t), rel=1e-12)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.3), (0.3, 0.0), (0.3, 0.1)])
def test_a_weight_decay_that_changes_counts_at_once(before, after):
    net, layers = twins("64-50-10", decay=before)
    x, t = inputs("64-50-10")
    net.gradient(x, t)
    net.weight_decay_lambda = layers.weight_decay_lambda = after
    loss, grads = net.loss_and_gradient(x, t)
    assert loss == pytest.approx(layers.loss(x, t), rel=1e-12)
    assert_gradients_near(grads, layers.gradient(x, t), 1e-12)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.3), (0.3, 0.0)])
def test_a_weight_decay_changed_by_a_callback_counts_from_then_on(before, after):
    x, t = inputs("64-50-10")
    results = []
    for net in twins("64-50-10", decay=before):

        def change(report):
            if report.step == 5:
                report.network.weight_decay_lambda = after

        history = fit(net, x, t, batch_size=50, epochs=2, seed=0, callbacks=[change])
        results.append(history.train_loss_list)
    np.testing.assert_allclose(*results, rtol=1e-11)


def test_parameters_changed_by_a_callback_are_trained_on():
    x, t = inputs("64-50-10")
    results = []
    for net in twins("64-50-10"):

        def change(report):
            report.network.params["W1"][...] *= 0.5

        history = fit(net, x, t, batch_size=50, epochs=3, seed=0, callbacks=[change])
        results.append(history.train_loss_list)
    np.testing.assert_allclose(*results, rtol=1e-11)


def test_an_error_in_a_callback_leaves_the_parameters_of_its_report():
    x, t = inputs("64-50-10")
    nets = build(SIZES["64-50-10"]), build(SIZES["64-50-10"])

    def fail(report):
        if report.step == 10:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(nets[0], x, t, batch_size=50, epochs=3, seed=0, callbacks=[fail])
    fit(nets[1], x, t, batch_size=50, epochs=2, seed=0)
    assert bits(nets[0]) == bits(nets[1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_has_a_loop_of_its_own(copied):
    net = build(SIZES["64-50-10"])
    x, t = inputs("64-50-10")
    expected = net.gradient(x, t)
    twin = copied(net)
    fit(twin, x, t, epochs=1)
    assert_gradients_near(net.gradient(x, t), expected, 0)
    assert len(pickle.dumps(net)) < 3 * sum(p.nbytes for p in net.params.values())


def test_a_network_in_another_type_computes_in_it():
    net = build(SIZES["64-50-10"])
    x, t = inputs("64-50-10", N=300)
    expected = net.gradient(x, t)
    single = net.astype(np.float32)
    assert_gradients_near(net.gradient(x, t), expected, 0)
    grads = single.gradient(x, t)
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    assert single.predict(x).dtype == np.float32
    for key, g in expected.items():
        np.testing.assert_allclose(grads[key], g, atol=1e-4 * np.abs(g).max())


# --- several at once -----------------------------------------------------------------------------


def in_threads(work, count):
    """Call work(i) in so many Python threads at once; return the results."""
    results, gate = [None] * count, threading.Barrier(count)

    def run(i):
        gate.wait()
        results[i] = work(i)

    workers = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def test_eight_python_threads_may_use_one_network():
    net = build(SIZES["784-50-10"])
    batches = [inputs("784-50-10", N=100 + 30 * i) for i in range(8)]
    expected = [(net.gradient(x, t), net.evaluate(x, t)) for x, t in batches]

    def work(i):
        return [(net.gradient(*batches[i]), net.evaluate(*batches[i])) for _ in range(10)]

    for i, results in enumerate(in_threads(work, 8)):
        assert results is not None
        for grads, evaluated in results:
            assert_gradients_near(grads, expected[i][0], 0)
            assert evaluated == expected[i][1]


def test_four_python_threads_may_train_networks_of_their_own():
    x, t = inputs("64-50-10")

    def work(i):
        net = build(SIZES["64-50-10"])
        fit(net, x, t, iterations=20, seed=i % 2, batch_size=50, threads=1 + i // 2)
        return bits(net)

    expected = [work(i) for i in range(4)]
    assert in_threads(work, 4) == expected
    assert expected[:2] == expected[2:]


FORK = """
import os, sys
import numpy as np
import fastbp

rng = np.random.default_rng(0)
x, t = rng.normal(size=(400, 300)), rng.integers(0, 10, 400)


def train():
    net = fastbp.MultiLayerNet(300, [400], 10, seed=0)
    fastbp.fit(net, x, t, epochs=2, seed=0, threads=2, progress=False)
    return net


def everything(net):
    loss, grads = net.loss_and_gradient(x, t)
    arrays = [*net.params.values(), *grads.values(), net.predict(x), np.array(net.evaluate(x, t))]
    return b"".join(a.tobytes() for a in arrays)


parent = train()  # on threads, which a forked child does not have
expected = everything(parent)
"""
OS_FORK = """
child = os.fork()
if child == 0:
    same = everything(parent) == expected and everything(train()) == expected
    os._exit(0 if same else 3)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status), everything(train()) == expected)
"""
POOL = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = [pool.apply_async(lambda_of, ()) for lambda_of in (train_there, train_there)]
    print("child", sum(r.get(100) != expected for r in results), everything(train()) == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork")
@pytest.mark.parametrize(
    "code",
    [OS_FORK, "def train_there():\n    return everything(train())\n" + POOL],
    ids=["os.fork", "multiprocessing"],
)
def test_a_forked_child_trains_after_its_parent_did(code):
    done = subprocess.run(
        [sys.executable, "-c", FORK + code],
        cwd=Path(fastbp.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "child 0 True\n", done.stderr


def test_a_two_layer_net_is_compiled_too():
    net, layers = TwoLayerNet(64, 50, 10, seed=0), build(SIZES["64-50-10"], cls=ByLayers)
    for key, p in layers.params.items():
        net.params[key][...] = p
    x, t = inputs("64-50-10")
    assert net.is_standard()
    assert not layers.is_standard()
    assert_gradients_near(net.gradient(x, t), layers.gradient(x, t), 1e-12)
