"""Layers on several threads: the bits of one thread, and threads only where they may run."""

import itertools
import os

import numba
import numpy as np
import pytest
from child import run
from hypothesis import given
from hypothesis import strategies as st
from numba.core.registry import cpu_target

from fastbp import functions, layers, parallel, reference
from fastbp import threads as setting
from fastbp.kernels import jit, relu, shell, sigmoid, softmax_loss
from fastbp.kernels.simd import MASK_BITS
from fastbp.layers import softmax_with_loss
from fastbp.layers.relu import PARALLEL_SIZE as RELU_SIZE
from fastbp.layers.sigmoid import PARALLEL_SIZE as SIGMOID_SIZE
from fastbp.layers.softmax_with_loss import PARALLEL_SIZE as SOFTMAX_SIZE

HAS_TWO = jit.MAX_THREADS > 1 and jit.has_fast_threads() and setting.available_cpus() > 1
needs_two = pytest.mark.skipif(not HAS_TWO, reason="needs two CPUs, and threads that are quick")
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        relu.relu_forward,
        relu.relu_backward,
        sigmoid.sigmoid_forward,
        sigmoid.sigmoid_backward,
        softmax_loss.softmax_forward,
        softmax_loss.softmax_loss_forward,
        softmax_loss.softmax_loss_rows_forward,
        softmax_loss.softmax_loss_backward,
        softmax_loss.softmax_loss_rows_backward,
    )
}
# Numbers for which a slice's first or last rows could go another way.
SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, -1e-40, 90.0, -90.0, 800.0, -800.0]


@pytest.fixture
def on(monkeypatch):
    """Give a function that computes something on so many threads, None for the quickest."""

    def compute(n, function):
        monkeypatch.setattr(setting, "_fixed", n)
        return function()

    return compute


@pytest.fixture
def shells(monkeypatch):
    """Count the calls of the parallel shell: a list of their numbers of threads."""
    calls, run_slices = [], shell.run_slices

    def counted(*arguments):
        calls.append(arguments[-1])
        run_slices(*arguments)

    monkeypatch.setattr(shell, "run_slices", counted)
    return calls


def bits(*values):
    """Return all the bits of some arrays and numbers."""
    return [np.asarray(value).tobytes() for value in values]


def numbers(size, dtype, seed=0):
    """Return random numbers, with special ones at the ends and where slices meet."""
    x = (4 * np.random.default_rng(seed).standard_normal(size)).astype(dtype)
    with np.errstate(over="ignore"):
        special = np.array(SPECIAL).astype(dtype)
    middle = size // 2 // parallel.QUANTUM * parallel.QUANTUM
    for start in (0, max(0, middle - len(special) // 2), size - len(special)):
        x[start : start + len(special)] = special
    return x


# --- slices --------------------------------------------------------------------------------------


@given(st.integers(0, 10**7), st.integers(1, 33))
def test_parts_are_all_rows_once(rows, count):
    edges = parallel.slice_edges(rows, count)
    assert len(edges) == count + 1
    assert (edges[0], edges[-1]) == (0, rows)
    assert all(a <= b for a, b in itertools.pairwise(edges))
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    assert max(sizes) <= rows // count + 1


def arguments(name, dtype, rows, columns):
    """Return a kernel's outputs, full of NaN or -1, its inputs, and its last number if any."""
    rng = np.random.default_rng(1)
    x, y = (numbers(rows * columns, dtype, seed).reshape(rows, columns) for seed in (0, 1))
    out = np.full_like(x, np.nan)
    p = reference.softmax(rng.standard_normal((rows, columns))).astype(dtype)
    t, scale = rng.integers(0, columns, rows), (1 / 3,)
    mask = rng.integers(-(2**63), 2**63, (1, -(-x.size // MASK_BITS)))
    return {
        "relu_forward": ([out, np.full_like(mask, -1)], [x], ()),
        "relu_backward": ([out], [mask, x], ()),
        "sigmoid_forward": ([out], [x], ()),
        "sigmoid_backward": ([out], [p, x], ()),
        "softmax_forward": ([out], [x], ()),
        "softmax_loss_forward": ([out], [x, t], ()),
        "softmax_loss_rows_forward": ([out], [x, p], ()),
        "softmax_loss_backward": ([out], [p, t], scale),
        "softmax_loss_rows_backward": ([out], [p, y], scale),
    }[name]


@needs_two
@by_dtype
@pytest.mark.parametrize("shape", [(37, 10), (5, 129), (2, 64), (1, 500), (1001, 3)])
@pytest.mark.parametrize("name", KERNELS)
def test_parts_have_the_bits_of_the_whole(name, shape, dtype):
    kernel, rows = KERNELS[name], shape[0]
    flat = "softmax" not in name
    whole, inputs, last = arguments(name, dtype, *shape)
    kernel(*whole, *inputs, *last)
    elements = rows * shape[1] if flat else 0
    count = elements // parallel.QUANTUM if flat else rows
    for edges in [
        None,
        (0, count),
        (0, 0, count),
        (0, 1, count),
        (0, count - 1, count, count),
        parallel.slice_edges(count, 7),
    ]:
        outputs, inputs, last = arguments(name, dtype, *shape)
        before = bits(*inputs)
        results = parallel._on_threads(
            2, kernel, (*outputs, *inputs), elements, *(last or (None,)), edges
        )
        assert bits(*outputs) == bits(*whole)
        assert bits(*inputs) == before
        outputs, inputs, last = arguments(name, dtype, *shape)
        if edges is not None and not flat:
            serial = parallel._on_one(kernel, (*outputs, *inputs), 0, *(last or (None,)), edges)
            assert bits(*(result or 0.0 for result in serial)) == bits(*results)


@needs_two
def test_the_number_of_numbas_threads_stays():
    outputs, inputs, _ = arguments("relu_forward", np.float32, 10, 10)
    before = numba.get_num_threads()
    try:
        for n in (1, 2):
            numba.set_num_threads(n)
            parallel._on_threads(2, relu.relu_forward, (*outputs, *inputs), 100, None, None)
            assert numba.get_num_threads() == n
    finally:
        numba.set_num_threads(before)


@pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")
@by_dtype
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_takes_as_many_words_as_its_form_has(name, dtype):
    outputs, inputs, last = arguments(name, dtype, 11, 3)
    kernel = KERNELS[name]
    kernel(*outputs, *inputs, *last)
    for signature in kernel.nopython_signatures:
        axes, takes, gives = shell.FORMS[shell.form_of(signature)]
        function = cpu_target.target_context.call_conv.get_function_type(
            signature.return_type, signature.args
        )
        # Before its arguments a compiled function takes where its result and its error go.
        assert len(function.args) - 2 == sum(5 + 2 * n for n in axes) + takes
        assert takes == len(last)
        assert gives == (signature.return_type == numba.float64)


@pytest.mark.parametrize(
    "signature",
    [
        "void(float32[:, ::1])",
        "void(float32[:, ::1], float32[:, :])",
        "void(float32[:, ::1], float32[:, ::1], float32)",
        "int64(float32[:, ::1], float32[:, ::1])",
        "float64(float32[:, ::1], float32[:, ::1])",
        "void(float32[:, ::1], float32[:, ::1], int64[::1], float32)",
    ],
)
def test_a_kernel_of_no_form_is_refused(signature):
    with pytest.raises(ValueError, match="no form for a kernel with the signature"):
        shell.form_of(numba.core.sigutils._parse_signature_string(signature))


# --- layers --------------------------------------------------------------------------------------


def through_layers(x, dout):
    """Return all that the element-wise layers and functions give."""
    found = []
    for layer in layers.Relu(), layers.Sigmoid():
        found += [layer.forward(x), layer.backward(dout)]
        if isinstance(layer, layers.Relu):
            found.append(layer.mask)
    return [*found, functions.relu(x), functions.sigmoid(x)]


@needs_two
@by_dtype
@pytest.mark.parametrize("more", [-1, 0, 1, 63, 64, 65, 12345])
@pytest.mark.parametrize("size", [RELU_SIZE, SIGMOID_SIZE])
def test_element_wise_layers_have_the_same_bits_on_two_threads(size, more, dtype, on, shells):
    x, dout = numbers(size + more, dtype), numbers(size + more, dtype, 1)
    before = bits(x, dout)
    one = on(1, lambda: through_layers(x, dout))
    assert shells == []
    two = on(2, lambda: through_layers(x, dout))
    assert len(shells) == 3 * sum(x.size >= least for least in (RELU_SIZE, SIGMOID_SIZE))
    assert bits(*one) == bits(*two)
    assert bits(x, dout) == before
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(two[0], np.where(x <= 0, 0, x))
        np.testing.assert_array_equal(two[2], x <= 0)
        np.testing.assert_array_equal(two[1], np.where(x <= 0, 0, dout))
        np.testing.assert_allclose(two[3], reference.sigmoid(x.astype(float)), 1e-5, 1e-44)


@needs_two
@by_dtype
@pytest.mark.parametrize(
    "shape",
    [(SOFTMAX_SIZE // 64 - 1, 64), (SOFTMAX_SIZE // 64, 64), (4099, 37), (3, 50_001), (401, 997),
     (1, SOFTMAX_SIZE + 3), (SOFTMAX_SIZE + 5, 1), (1151, 2000)],
)  # fmt: skip
def test_the_loss_has_the_same_bits_on_two_threads(shape, dtype, on, shells, rng):
    x = rng.standard_normal(shape).astype(dtype)
    if x.size > 10 * shape[1]:
        x[len(x) // 2 - 1 : len(x) // 2 + 1, 0] = -np.inf, -700
    t, p = rng.integers(0, shape[1], len(x)), reference.softmax(rng.standard_normal(shape))

    def compute():
        found = [functions.softmax(x)]
        for targets in (t, p):
            layer = layers.SoftmaxWithLoss()
            found += [layer.forward(x, targets), layer.y, layer.backward(3.0)]
        return found

    one = on(1, compute)
    assert shells == []
    two = on(2, compute)
    assert len(shells) == (5 if x.size >= SOFTMAX_SIZE else 0)
    assert bits(*one) == bits(*two)
    oracle = reference.SoftmaxWithLoss()
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(two[1], oracle.forward(x.astype(float), t), rtol=1e-5)
        np.testing.assert_allclose(two[3], 3 * oracle.backward(), rtol=1e-4, atol=1e-8)


@needs_two
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_no_number_touches_no_other(value, on, rng):
    x = rng.standard_normal((2 * SOFTMAX_SIZE // 64, 64))
    plain = on(2, lambda: functions.softmax(x))
    bad = [0, len(x) // 2 - 1, len(x) // 2, len(x) - 1]
    x[bad] = value
    y = on(2, lambda: functions.softmax(x))
    assert np.isnan(y[bad]).all()
    rest = np.delete(np.arange(len(x)), bad)
    assert bits(y[rest]) == bits(plain[rest])
    assert np.isnan(on(2, lambda: functions.softmax_loss(x, np.zeros(len(x), int))))


@needs_two
def test_any_form_of_a_big_array_is_taken(on):
    x = numbers(RELU_SIZE + 32, np.float64).reshape(-1, 4, 8)
    expected = on(1, lambda: through_layers(x, x))
    read_only = x.copy()
    read_only.flags.writeable = False
    odd = np.frombuffer(bytearray(x.nbytes + 1), x.dtype, x.size, offset=1).reshape(x.shape)
    odd[...] = x
    gaps = np.repeat(x, 2, axis=-1)[..., ::2]
    for form in (read_only, odd, gaps, np.asfortranarray(x), x.astype(">f8")):
        assert bits(*on(2, lambda form=form: through_layers(form, form))) == bits(*expected)


def test_an_array_with_gaps_has_no_address():
    array = np.zeros((4, 8))
    assert parallel._address(array) == array.ctypes.data
    array.flags.writeable = False
    assert parallel._address(array) == array.ctypes.data
    for gaps in (np.zeros((4, 8))[:, ::2], array[:, ::2]):
        with pytest.raises(TypeError, match="underlying buffer"):
            parallel._address(gaps)


@needs_two
def test_results_are_arrays_of_their_own(on):
    x = numbers(RELU_SIZE, np.float32)
    for layer in layers.Relu(), layers.Sigmoid():
        found = on(2, lambda layer=layer: [layer.forward(x), layer.backward(x), layer.backward(x)])
        for a, b in itertools.combinations([x, *found], 2):
            assert not np.shares_memory(a, b)
        assert all(array.flags.owndata and array.flags.writeable for array in found)


@needs_two
def test_a_result_may_be_made_read_only(on):
    x = numbers(SIGMOID_SIZE, np.float32)
    found = []
    for n in (1, 2):
        layer = layers.Sigmoid()
        on(n, lambda layer=layer: layer.forward(x)).flags.writeable = False
        found.append(bits(layer.out, on(n, lambda layer=layer: layer.backward(x))))
    assert found[0] == found[1]


@needs_two
def test_the_quicker_number_of_threads_is_found_by_trying(on, shells):
    x = numbers(RELU_SIZE, np.float32)
    expected = on(1, lambda: bits(functions.relu(x)))
    parallel._paces.clear()
    for _ in range(50):
        assert on(None, lambda: bits(functions.relu(x))) == expected
    (pace,) = parallel._paces.values()
    assert set(pace._seconds) == {1, 2}
    assert len(shells) >= 1


def test_sections_do_not_depend_on_the_threads():
    assert softmax_with_loss._sections(4096, 4_096_000)[::8] == (0, 2048, 4096)
    assert len(softmax_with_loss._sections(4096, 4_096_000)) == 17
    assert softmax_with_loss._sections(2049, 131_136) == (0, 1024, 2049)


# --- where no threads may run --------------------------------------------------------------------

BIG = """
import json
import numpy as np
import fastbp
{first}
x = np.ones((1000, 1000), np.float32)
for layer in fastbp.Relu(), fastbp.Sigmoid():
    for _ in range(30):
        layer.forward(x), layer.backward(x)
loss = fastbp.SoftmaxWithLoss()
for _ in range(30):
    loss.forward(x, np.zeros(1000, int)), loss.backward()
from numba.np.ufunc import parallel
print(json.dumps(bool(parallel._is_initialized)))
"""
ONE = "fastbp.set_num_threads(1)"


@needs_two
@pytest.mark.parametrize(
    ("first", "variables", "expected"),
    [
        ("", {"FASTBP_NUM_THREADS": None}, True),
        ("", {"FASTBP_NUM_THREADS": "2"}, True),
        ("", {"FASTBP_NUM_THREADS": "1"}, False),
        (ONE, {"FASTBP_NUM_THREADS": None}, False),
        (ONE, {"FASTBP_NUM_THREADS": "2"}, False),
        ("import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})",
         {"FASTBP_NUM_THREADS": None}, False),
    ],
)  # fmt: skip
def test_threads_start_only_where_they_may(first, variables, expected):
    assert run("-c", BIG.format(first=first), **variables) == expected


FORK = """
import json
import os
from fastbp import threads
before = threads.can_run_parallel()
child = os.fork()
if not child:
    os._exit(int(threads.can_run_parallel()))
print(json.dumps([before, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]))
"""


@needs_two
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_no_threads():
    assert run("-W", "ignore::DeprecationWarning", "-c", FORK) == [True, 0]


@needs_two
@pytest.mark.parametrize("layer", ["workqueue", "nonsense"])
def test_slow_threads_are_not_used(layer):
    code = BIG.format(first="").replace("numba.np.ufunc", "fastbp")
    code = code.replace("bool(parallel._is_initialized)", "[*parallel._paces, *parallel._codes]")
    assert run("-c", code, NUMBA_THREADING_LAYER=layer, FASTBP_NUM_THREADS=None) == []


def test_more_threads_than_numba_has_are_not_asked_for(on, shells):
    x = numbers(RELU_SIZE, np.float32)
    expected = on(1, lambda: bits(functions.relu(x)))
    assert on(jit.MAX_THREADS + 3, lambda: bits(functions.relu(x))) == expected
    assert all(n <= jit.MAX_THREADS for n in shells)
