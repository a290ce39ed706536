"""Vector registers: views, squares transposed in registers, and targets other than the host."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import fastbp
from fastbp.kernels import simd
from fastbp.kernels.jit import JIT_DISABLED, target_features
from fastbp.kernels.simd import view  # Numba forbids an attribute of this name

DTYPES = {"float32": np.float32, "float64": np.float64}
by_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)

# --- registers -----------------------------------------------------------------------------------


def test_a_register_holds_some_whole_numbers():
    assert simd.REGISTER_BYTES in (16, 32, 64)
    assert simd.REGISTERS in (16, 32)
    assert simd.lanes(4) == 2 * simd.lanes(8) == simd.REGISTER_BYTES // 4


def test_registers_are_those_of_the_target():
    features = target_features()
    if "avx512f" in features:
        registers = 64, 32
    elif "avx" in features:
        registers = 32, 16
    elif platform.machine().lower() in ("aarch64", "arm64"):
        registers = 16, 32
    else:
        registers = 16, 16
    assert registers == (simd.REGISTER_BYTES, simd.REGISTERS)


@numba.njit
def lanes_in_kernel(array):
    return simd.vector_lanes(array)


@by_dtype
def test_kernels_know_the_same_width(dtype):
    assert lanes_in_kernel(np.zeros(3, dtype)) == simd.lanes(np.dtype(dtype).itemsize)


# --- views ---------------------------------------------------------------------------------------


@numba.njit
def copy_of_view(array, start, size):
    return view(array, start, size).copy()


@numba.njit
def copy_of_row(matrix, i):
    return simd.row_of(matrix, i).copy()


@numba.njit
def fill_view(array, start, size, value):
    part = view(array, start, size)
    for i in range(part.size):
        part[i] = value


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (24, 1)], ids=str)
@pytest.mark.parametrize(("start", "size"), [(0, 24), (0, 0), (24, 0), (5, 1), (3, 17), (23, 1)])
def test_a_view_is_a_slice_of_the_flat_array(start, size, shape, dtype):
    array = np.arange(24, dtype=dtype).reshape(shape)
    piece = copy_of_view(array, start, size)
    assert piece.dtype == dtype
    assert piece.tolist() == list(range(start, start + size))


@by_dtype
def test_what_is_written_to_a_view_is_in_the_array(dtype):
    array = np.zeros((4, 6), dtype)
    fill_view(array, 5, 8, 3)
    assert array.ravel().tolist() == [0] * 5 + [3] * 8 + [0] * 11


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(4, 6), (1, 24), (24, 1), (3, 0)], ids=str)
def test_a_row_is_the_matrixs_row(shape, dtype):
    matrix = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    for i in range(shape[0]):
        np.testing.assert_array_equal(copy_of_row(matrix, i), matrix[i])


@numba.njit
def distances(array, offsets):
    out = np.zeros(offsets.size, np.int64)
    for i in range(offsets.size):
        out[i] = simd.address_of(array, offsets[i]) - simd.address_of(array, 0)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_addresses_count_bytes(dtype):
    array, offsets = np.zeros((5, 7), dtype), np.array([0, 1, 6, 34])
    assert distances(array, offsets).tolist() == (offsets * array.itemsize).tolist()


@numba.njit
def prefetch_at(address):
    simd.prefetch(address)


@pytest.mark.parametrize("address", [0, -1, 1, 2**62])
def test_a_prefetch_of_any_address_is_no_fault(address):
    prefetch_at(address)


# --- masks ---------------------------------------------------------------------------------------


@numba.njit
def mask_at(array, start):
    return simd.nonzero_bits(array, start)


@numba.njit
def places_of_bits(mask, out):
    count = 0
    while mask != 0:
        out[count] = simd.lowest_bit(mask)
        mask = simd.without_lowest_bit(mask)
        count += 1
    return count


@numba.njit
def transpose_masks(masks, start):
    simd.transpose_bits(masks, start)


@numba.njit
def mask_of_one(place):
    return simd.bit(place)


@by_dtype
@pytest.mark.parametrize("size", [1, 63, 64, 65, 130])
def test_a_mask_says_which_numbers_are_not_zero_up_to_the_end_of_the_array(size, dtype):
    around = np.ones(size + 200, dtype)  # what a mask must not show
    array = around[100 : 100 + size]
    array[:] = np.random.default_rng(size).random(size) < 0.5
    array[-1], array[size // 2] = np.nan, -0.0
    for start in {0, 1, size // 2, max(0, size - 64), max(0, size - 63), size - 1}:
        expected = [j for j, v in enumerate(array[start : start + 64]) if v != 0]
        assert int(mask_at(array, start)) % 2**64 == sum(1 << j for j in expected)


@pytest.mark.parametrize(
    "places", [[], [0], [63], [0, 63], [31, 32], [5, 7, 62], range(64)], ids=str
)
def test_the_bits_of_a_mask_are_found_from_the_lowest_on(places):
    mask = np.int64(0)
    for place in places:
        mask |= np.int64(mask_of_one(place))
    out = np.full(64, -1)
    assert places_of_bits(mask, out) == len(places)
    assert out[: len(places)].tolist() == list(places)


def test_a_square_of_bits_is_transposed_and_nothing_else_written():
    rng = np.random.default_rng(0)
    for start in (0, 1, 3):
        masks = rng.integers(-(2**63), 2**63, 70)
        before = masks.copy()
        transpose_masks(masks, start)
        for j in range(64):
            expected = sum((int(m) >> j & 1) << i for i, m in enumerate(before[start : start + 64]))
            assert int(masks[start + j]) % 2**64 == expected
        outside = np.s_[start : start + 64]
        np.testing.assert_array_equal(np.delete(masks, outside), np.delete(before, outside))


# --- squares -------------------------------------------------------------------------------------


@numba.njit
def transpose(target, t, target_row, source, s, source_row):
    simd.transpose_block(target, t, target_row, source, s, source_row)


@by_dtype
@pytest.mark.parametrize(("t", "s", "gap"), [(0, 0, 0), (1, 0, 3), (0, 5, 1), (7, 3, 16)])
def test_a_square_is_transposed_and_nothing_else_written(dtype, t, s, gap):
    width = simd.lanes(np.dtype(dtype).itemsize)
    rows, target_rows = width + gap, width + 2 * gap
    source = np.random.default_rng(0).normal(size=s + rows * width).astype(dtype)
    before = source.copy()
    target = np.full(t + target_rows * width + 3, np.nan, dtype)
    expected = target.copy()
    for i in range(width):
        for j in range(width):
            expected[t + j * target_rows + i] = source[s + i * rows + j]
    transpose(target, t, target_rows, source, s, rows)
    np.testing.assert_array_equal(target, expected)
    np.testing.assert_array_equal(source, before)


# --- other targets -------------------------------------------------------------------------------

# Trains in both types, and prints the width and whether the results are those of the book's
# mathematics.  On one thread: what is compiled for two is a thin shell, and takes as long again.
TRAIN = """
import numpy as np
import fastbp
from fastbp import reference
from fastbp.kernels import simd

rng = np.random.default_rng(0)
x, t = rng.normal(size=(60, 70)), rng.integers(0, 10, 60)
print(simd.REGISTER_BYTES)
for T in np.float64, np.float32:
    net = fastbp.TwoLayerNet(70, 53, 10, 0.1, dtype=T, seed=0)
    book = reference.TwoLayerNet(70, 53, 10)
    for key, p in net.params.items():
        book.params[key][...] = p
    fastbp.fit(net, x, t, batch_size=60, epochs=5, seed=0, progress=False, threads=1)
    sgd = reference.SGD(lr=0.1)
    for _ in range(5):
        sgd.update(book.params, book.gradient(x, t))
    far = [np.abs(net.params[k] - p).max() / np.abs(p).max() for k, p in book.params.items()]
    print(max(far) < (1e-12 if T is np.float64 else 1e-5))
"""
TARGETS = {
    "AVX2": (32, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx"}),
    "x86-64-v2": (16, {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+sse4.2"}),
    "generic": (16, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
}


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="these are x86-64 targets"
)
@pytest.mark.parametrize("target", TARGETS)
def test_training_is_right_on(target, tmp_path):
    width, variables = TARGETS[target]
    if width == 32 and simd.REGISTER_BYTES < 32:
        pytest.skip("this processor cannot run the code")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        cwd=Path(fastbp.__file__).parents[1],
        env=os.environ | variables | {"FASTBP_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stdout.split() == [str(width), "True", "True"], done.stderr
