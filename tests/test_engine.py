"""The compiled loop: the same numbers as the layers, and the same bits on any number of threads."""

import itertools
import signal
import sys

import child
import numpy as np
import pytest
from by_layers import ByLayers, bits, build, examples

import fastbp
from fastbp import DivergedError, MultiLayerNet, TrainingInterrupted, fit
from fastbp import optimizer as optimizers
from fastbp._memory import CACHE_LINE
from fastbp.engine import KEEP_GRADIENT, Engine
from fastbp.examples import as_data
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.layers import Relu
from fastbp.sampling import Batches

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="the loop is compiled, or takes minutes")
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
EDGES = (47, 48, 49, 50, 63, 64, 65, 100, 127, 128, 129)  # around vectors, tiles and panels


def assert_params_near(actual, expected, relative):
    """Compare parameters, relative to the largest of each."""
    for key, p in expected.params.items():
        bound = relative * np.abs(p).max()
        np.testing.assert_allclose(actual.params[key], p, rtol=0, atol=bound, err_msg=key)


# --- what is trained, and how --------------------------------------------------------------------

# name: sizes, options of the network, kind of the examples, optimizer, options of fit
SMALL = (64, 50, 10)
CASES = {
    "64-50-10": (SMALL, {}, "dense", "SGD", {}),
    "784-50-10": ((784, 50, 10), {}, "dense", "SGD", {}),
    "784-50-10, sparse": ((784, 50, 10), {}, "sparse", "SGD", {}),
    "784-50-10, bytes": ((784, 50, 10), {}, "bytes", "SGD", {"scale": 1e-4}),
    "784-512-256-10": ((784, 512, 256, 10), {}, "dense", "Momentum", {"iterations": 15}),
    "784-512-256-10, sparse": ((784, 512, 256, 10), {}, "sparse", "Adam", {"iterations": 15}),
    "one layer": ((64, 10), {}, "dense", "SGD", {}),
    "one wide layer": ((300, 700), {}, "dense", "SGD", {"iterations": 20}),
    "one input, one class more": ((1, 1, 2), {}, "dense", "SGD", {}),
    "five layers": ((20, 30, 25, 40, 13, 5), {}, "dense", "SGD", {"iterations": 50}),
    "sigmoid": (SMALL, {"activation": "sigmoid"}, "dense", "SGD", {}),
    "five layers, sigmoid": (
        (20, 30, 25, 40, 13, 5),
        {"activation": "sigmoid"},
        "dense",
        "Adam",
        {"iterations": 50},
    ),
    **{name: (SMALL, {}, "dense", name, {}) for name in ("Momentum", "Nesterov", "AdaGrad")},
    **{name: (SMALL, {}, "dense", name, {}) for name in ("RMSprop", "Adam")},
    **{
        f"{name}, decay": (SMALL, {"decay": 0.01}, "dense", name, {})
        for name in ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")
    },
    "decay, wide": ((300, 600, 10), {"decay": 0.01}, "dense", "SGD", {"iterations": 20}),
    "one-hot": (SMALL, {}, "one-hot", "SGD", {}),
    "soft targets": (SMALL, {}, "soft", "SGD", {}),
    "Fortran order": (SMALL, {}, "Fortran", "SGD", {}),
    "a last batch of 10": (SMALL, {}, "dense", "SGD", {"batch_size": 60}),
    "a last batch of 1": (SMALL, {}, "dense", "SGD", {"batch_size": 83}),
    "batches of 1": (SMALL, {}, "dense", "SGD", {"batch_size": 1}),
    "batches of 7": (SMALL, {}, "dense", "SGD", {"batch_size": 7}),
    "batches of 600": (SMALL, {}, "dense", "SGD", {"batch_size": 600, "iterations": 40}),
    "batches of 600, wide": (
        (300, 600, 10),
        {},
        "dense",
        "SGD",
        {"batch_size": 600, "iterations": 5},
    ),
    "thin columns": ((300, 50, 10), {}, "dense", "SGD", {}),
    "thin columns, decay": ((300, 50, 10), {"decay": 0.01}, "dense", "Adam", {}),
    "thin columns, sigmoid": ((300, 50, 10), {"activation": "sigmoid"}, "dense", "SGD", {}),
    "thin columns, bytes": ((300, 50, 10), {}, "bytes", "Momentum", {"scale": 0.01}),
    "thin columns, batches of 600": (
        (301, 49, 10),
        {},
        "dense",
        "SGD",
        {"batch_size": 600, "iterations": 10},
    ),
    "thin columns, but for a last batch of 10": (
        (300, 50, 10),
        {"activation": "sigmoid", "decay": 0.01},
        "dense",
        "Adam",
        {"batch_size": 60},
    ),
    "thin columns, batches of 7": ((131, 66, 10), {}, "dense", "SGD", {"batch_size": 7}),
    "a thin column behind several panels": ((70, 113, 10), {}, "dense", "SGD", {}),
    "thin columns behind many panels": (
        (300, 594, 10),
        {"decay": 0.01},
        "dense",
        "SGD",
        {"iterations": 20},
    ),
    "thin columns of a second layer": ((20, 80, 50, 5), {}, "dense", "Adam", {}),
    "choice": (SMALL, {}, "dense", "SGD", {"sampling": "choice"}),
}
RATES = {"SGD": 0.05, "Momentum": 0.01, "Nesterov": 0.01, "AdaGrad": 0.01}
every_case = pytest.mark.parametrize("case", CASES)


def train(case, dtype, cls=MultiLayerNet, **options):
    """Train a case; return network, losses and optimizer."""
    sizes, about, kind, name, special = CASES[case]
    special = {"batch_size": 50, "iterations": 200, "seed": 3, **special, **options}
    scale = special.pop("scale", 1.0)
    x, t = examples(sizes[0], sizes[-1], kind, 1300 if special["batch_size"] == 600 else 250)
    net = build(sizes, dtype=dtype, cls=cls, **about)
    net.params["W1"] *= scale
    optimizer = getattr(optimizers, name)(lr=RATES.get(name, 0.001) * (scale if scale < 1 else 1))
    history = fit(net, x, t, optimizer=optimizer, **special)
    return net, history.train_loss_list, optimizer


@every_case
@both_types
def test_any_number_of_threads_gives_the_same_bits(case, dtype):
    net, losses, optimizer = train(case, dtype, threads=1, iterations=12)
    for threads in (2, 4, None):
        options = {"threads": threads, "iterations": 12}
        other, other_losses, other_optimizer = train(case, dtype, **options)
        assert other_losses == losses
        assert bits(other) == bits(net)
        for slot in optimizer._slots:
            for key, p in net.params.items():
                states = [o._state(slot, key, p) for o in (optimizer, other_optimizer)]
                np.testing.assert_array_equal(*states)


@every_case
def test_training_is_that_of_the_layers(case):
    net, losses, _ = train(case, np.float64, threads=1)
    layers, expected, _ = train(case, np.float64, ByLayers)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    assert_params_near(net, layers, 1e-10)


@every_case
def test_training_in_float32_is_that_of_the_layers(case):
    net, losses, _ = train(case, np.float32, iterations=5)
    layers, expected, _ = train(case, np.float32, ByLayers, iterations=5)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert_params_near(net, layers, 1e-3)


@pytest.mark.parametrize("position", ["input", "hidden", "classes"])
@pytest.mark.parametrize("width", EDGES)
@both_types
def test_layers_of_any_width_agree(dtype, width, position):
    sizes = {"input": (width, 20, 5), "hidden": (30, width, 5), "classes": (30, 20, width)}
    sizes = sizes[position]
    x, t = examples(sizes[0], sizes[-1])
    nets = [build(sizes, dtype=dtype, cls=cls) for cls in (MultiLayerNet,) * 2 + (ByLayers,)]
    for net, threads in zip(nets, (1, 2, None), strict=True):
        fit(net, x, t, batch_size=33, iterations=20, seed=0, threads=threads)
    assert bits(nets[0]) == bits(nets[1])
    assert_params_near(nets[0], nets[2], 1e-11 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("threads", [1, 2, 63, 64, 65, 1000])
def test_more_threads_than_there_is_memory_for_are_no_harm(threads):
    case = "Adam"
    nets = [train(case, np.float64, threads=n, iterations=5)[0] for n in (1, threads)]
    assert bits(nets[0]) == bits(nets[1])


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    net = build(SMALL)
    before = bits(net)
    with pytest.raises(ValueError, match=r"fit: threads is .*positive integer"):
        fit(net, *examples(64, 10), iterations=1, threads=threads)
    assert bits(net) == before


def test_parallel_calls_leave_the_number_of_threads_as_it_was():
    import numba

    before = numba.get_num_threads()
    train("784-50-10", np.float64, threads=1, iterations=3)
    train("784-50-10", np.float64, threads=2, iterations=3)
    assert numba.get_num_threads() == before
    try:
        numba.set_num_threads(1)
        train("784-50-10", np.float64, threads=2, iterations=3)
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


DIVERGES = """
import numpy as np, fastbp
rng = np.random.default_rng(0)
x, t = 1e6 * rng.standard_normal((500, 130)), rng.integers(0, 10, 500)
network = fastbp.TwoLayerNet(130, 90, 10, seed=0)
options = {"batch_size": 50, "iterations": 40, "evaluate_sample": 1, "threads": 2, "seed": 0}
try:
    fastbp.fit(network, x, t, optimizer=fastbp.SGD(lr=1e6), progress=False, **options)
except fastbp.DivergedError as error:
    print(len(error.history))
"""


def test_all_threads_stop_at_a_loss_that_is_not_finite():
    """Those that go on wait for the others for ever: in a process of its own."""
    assert 0 < child.run("-c", DIVERGES) < 40


# --- what the loop leaves to the layers ----------------------------------------------------------


class Halved(fastbp.SGD):
    """An optimizer of a user's own."""

    def _step(self, *arguments):
        super()._step(*arguments)


def test_an_optimizer_of_ones_own_trains_layer_by_layer():
    x, t = examples(64, 10)
    own, ours = build(SMALL), build(SMALL)
    fit(own, x, t, optimizer=Halved(lr=0.05), iterations=50, seed=0)
    fit(ours, x, t, optimizer=fastbp.SGD(lr=0.05), iterations=50, seed=0)
    assert_params_near(own, ours, 1e-11)


class Doubled:
    """A layer of a user's own: y = 2 x."""

    def forward(self, x):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


@pytest.mark.parametrize("layer", [Doubled, Relu], ids=["Doubled", "Relu"])
def test_a_layer_of_ones_own_counts(layer):
    net = build(SMALL)
    first, *rest = net.layers.items()
    net.layers = dict([first, ("Own", layer()), *rest])
    x, t = examples(64, 10, N=300)
    for loss in (net.evaluate(x, t)[0], net.loss_and_gradient(x, t)[0]):
        assert loss == pytest.approx(net.loss(x, t), rel=1e-12)
    np.testing.assert_allclose(net.predict(x), net.predict(x[:100].tolist() + x[100:].tolist()))
    losses = fit(net, x, t, epochs=10, seed=0).train_loss_list
    assert losses[-1] < losses[0]
    plain = build(SMALL)
    expected = fit(plain, x, t, epochs=10, seed=0).train_loss_list
    if layer is Relu:  # twice is once
        np.testing.assert_allclose(losses, expected, rtol=1e-10)
    else:
        assert losses[0] != pytest.approx(expected[0], rel=1e-3)


# --- losses that are no numbers ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spreads_as_through_the_layers(value, kind):
    x, t = examples(64, 10, kind)
    x[3, 40] = value
    nets = build(SMALL), build(SMALL, cls=ByLayers)
    for net in nets:
        history = fit(net, x, t, batch_size=250, iterations=1, allow_nonfinite=True)
        assert len(history) == 1
    for key, expected in nets[1].params.items():
        np.testing.assert_array_equal(np.isfinite(nets[0].params[key]), np.isfinite(expected))
        assert not np.isfinite(expected).all()


def test_a_nan_in_an_example_does_not_touch_the_batches_without_it():
    x, t = examples(64, 10)
    last = Batches(250, 50, "shuffle", 0).take(5)[0][-1]  # an example of the fifth batch
    nets = [build(SMALL), build(SMALL)]
    expected = fit(nets[0], x, t, batch_size=50, iterations=4, seed=0).train_loss_list
    x[last] = np.nan
    options = {"batch_size": 50, "seed": 0, "allow_nonfinite": True}
    losses = fit(nets[1], x, t, iterations=5, **options).train_loss_list
    assert losses[:4] == expected
    assert np.isnan(losses[4])


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Adam"])
def test_divergence_leaves_the_parameters_of_which_the_loss_was_no_number(name):
    x, t = examples(64, 10)
    rows = Batches(250, 50, "shuffle", 0).take(4)[0]
    step, row = 3, max(rows[-50:])
    x[row] = 1.7e308  # the logits of this example overflow, in the batch that has it
    nets = [build(SMALL), build(SMALL)]
    taught = [getattr(optimizers, name)(lr=0.01) for _ in nets]
    options = {"batch_size": 50, "seed": 0, "evaluate_sample": 5}
    with pytest.raises(DivergedError) as caught:
        fit(nets[0], x, t, optimizer=taught[0], epochs=1, **options)
    fit(nets[1], x, t, optimizer=taught[1], iterations=step, **options)
    assert caught.value.step == step
    assert len(caught.value.history) == step
    assert bits(nets[0]) == bits(nets[1])
    assert getattr(taught[0], "iter", None) == getattr(taught[1], "iter", None)


# --- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such timer")
def test_ctrl_c_in_the_middle_leaves_the_parameters_of_whole_steps():
    x, t = examples(8, 3, N=20_000)
    options = {"batch_size": 10, "seed": 0}
    fit(build((8, 6, 3)), x, t, iterations=1, **options)  # nothing is compiled when the clock runs
    net = build((8, 6, 3))

    def press(report):
        if not report.step:
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(TrainingInterrupted) as caught:
            fit(net, x, t, epochs=1000, callbacks=[press], **options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    done = len(caught.value.history)
    expected = build((8, 6, 3))
    if done:
        losses = fit(expected, x, t, iterations=done, **options).train_loss_list
        assert caught.value.history.train_loss_list == losses
    assert bits(net) == bits(expected)


# --- which examples ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0], ids=["the book's", "seeded"])
@pytest.mark.parametrize("sampling", ["shuffle", "choice"])
@pytest.mark.parametrize(("N", "batch_size"), [(30, 10), (30, 7), (31, 1), (1000, 33)])
def test_examples_are_the_same_however_many_batches_are_asked_for(N, batch_size, sampling, seed):
    if sampling == "shuffle":
        seed = seed or 0  # without a seed every run is another
    drawn = []
    for counts in ([1], [2], [3, 1, 5], [1000]):
        np.random.seed(0)
        batches, pieces = Batches(N, batch_size, sampling, seed), []
        for count in itertools.cycle(counts):
            rows, begins = batches.take(count)
            assert 2 <= len(begins) <= count + 1
            pieces += np.split(rows, begins[1:-1])
            if len(pieces) >= 100:
                break
        drawn.append([piece.tolist() for piece in pieces[:100]])
    assert all(other == drawn[0] for other in drawn)


@pytest.mark.parametrize("sampling", ["shuffle", "choice"])
def test_batches_are_rows_of_the_data_and_where_each_begins(sampling):
    rows, begins = Batches(25, 10, sampling, 0).take(3)
    assert (rows.dtype, begins.dtype) == (np.int64, np.int64)
    assert begins.tolist() == [0, 10, 20, 25 if sampling == "shuffle" else 30]
    assert len(rows) == begins[-1]
    assert set(rows) <= set(range(25))


# --- examples read where the user has them -------------------------------------------------------

# Rows of many cache lines, of two or less, and of a few bytes: of these the last ones are short.
DENSE = ((300, 50, 10), (20, 30, 5), (3, 4, 3))
every_dense_net = pytest.mark.parametrize("sizes", DENSE)


@every_dense_net
@both_types
def test_examples_are_read_where_they_are_except_the_last(sizes, dtype):
    x, t = examples(sizes[0], sizes[-1], N=40)
    x = x.astype(dtype)
    engine = Engine(sizes, "relu", dtype, 40, 0, 1)
    data = as_data("x", x, t, x.dtype)
    assert np.shares_memory(data.x, x)
    batch = np.arange(len(x))[::-1]
    engine.run("measure", data, KEEP_GRADIENT, batch, np.array([0, len(x)]))
    rows, buffer = engine.plan.net("measure").rows[: len(x)], engine.plan.buffer
    in_place = rows == x.ctypes.data + batch * x[0].nbytes
    assert in_place[CACHE_LINE // x[0].nbytes + 1 :].all()
    ends = batch * x[0].nbytes + x[0].nbytes
    np.testing.assert_array_equal(in_place, ends + CACHE_LINE <= x.nbytes)
    assert ((rows >= buffer.ctypes.data) & (rows < buffer.ctypes.data + buffer.nbytes))[
        ~in_place
    ].all()


@every_dense_net
@both_types
def test_the_last_examples_are_trained_on_as_any_others(sizes, dtype):
    x, t = examples(sizes[0], sizes[-1], N=60)
    longer = np.full((100, sizes[0]), 7.0, dtype)
    longer[:60] = x
    nets = build(sizes, dtype=dtype), build(sizes, dtype=dtype)
    for net, inputs in zip(nets, (longer[:60].copy(), longer[:60]), strict=True):
        fit(net, inputs, t, batch_size=25, iterations=9, seed=0)
    assert bits(nets[0]) == bits(nets[1])


NOTHING_BEHIND = """
import ctypes, json, mmap, sys
import numpy as np
import fastbp
from fastbp import threads

D, H, dtype = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
N, page, PROT_NONE = 37, mmap.PAGESIZE, 0
size = N * D * np.dtype(dtype).itemsize
pages = -(-size // page)
memory = mmap.mmap(-1, (pages + 1) * page)
x = np.frombuffer(memory, dtype, N * D, pages * page - size).reshape(N, D)
x[...] = np.random.default_rng(0).normal(size=x.shape)
libc = ctypes.CDLL(None, use_errno=True)
behind = ctypes.addressof(ctypes.c_char.from_buffer(memory, pages * page))
assert libc.mprotect(ctypes.c_void_p(behind), page, PROT_NONE) == 0
t = np.arange(N) % 4
network = fastbp.TwoLayerNet(D, H, 4, dtype=np.dtype(dtype).type, seed=0)
for n in (1, 2):
    fastbp.fit(network, x, t, batch_size=10, epochs=2, threads=n, progress=False)
network.gradient(x, t)
network.predict(x)
network.accuracy(x, t)
print(json.dumps(x.shape))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects a page of memory as Linux does")
@pytest.mark.parametrize("D", [1, 3, 67, 109, 300])  # 109: furthest behind a row
@both_types
def test_nothing_is_read_that_is_not_there(D, dtype):
    """A process that reads the page behind the examples is ended by the system."""
    name = np.dtype(dtype).name
    assert child.run("-c", NOTHING_BEHIND, D, 50, name) == [37, D]
