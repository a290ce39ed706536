"""The tile of a matrix product, for every width there is, and the code LLVM makes of it."""

import re

import numba
import numpy as np
import pytest

from fastbp.kernels import simd
from fastbp.kernels.gemm import (
    CODES,
    DOTS_CODE,
    SINGLE,
    THIN,
    THIN_CODE,
    THIN_CODES,
    THIN_VECTORS,
    TILE_ROWS,
    TILE_VECTORS,
    TRANSPOSED,
    code_of,
    columns_of,
    columns_of_code,
    rows_of,
    tail_lanes,
    tile,
    widths_of,
)
from fastbp.kernels.jit import JIT_DISABLED, target_features

DTYPES = {"float32": np.float32, "float64": np.float64}
by_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
by_code = pytest.mark.parametrize("code", CODES)
# Offsets of the first elements and gaps between rows: nothing lies where it would by accident.
C_AT, A_AT, B_AT, C0_AT, GAP = 7, 5, 3, 2, 3


@numba.njit(error_model="numpy")
def call(code, C, c, c_row, a_rows, a, B, b, b_row, b_rows, K, C0, c0, c0_row, scale, least):
    """Call the tile, which has no entry point from Python; it prefetches nothing."""
    address, of_a, of_b = (
        simd.address_of(C, 0),
        simd.address_of(a_rows, 0),
        simd.address_of(b_rows, 0),
    )
    tile(
        code, C, c, c_row, of_a, a, B, b, b_row, of_b, K, C0, c0, c0_row, scale, least,
        address, address, 0,
    )  # fmt: skip


@numba.njit
def columns_in_kernel(code, array):
    return columns_of_code(code, array)


def in_gaps(matrix, at):
    """Return a flat array of NaN with the matrix in it from ``at`` on, and the stride of a row."""
    rows, columns = matrix.shape
    row = columns + GAP
    flat = np.full(at + rows * row + GAP, np.nan, matrix.dtype)
    window(flat, at, matrix.shape, row)[...] = matrix
    return flat, row


def window(flat, at, shape, row):
    """Return a view of the matrix that lies at an offset of a flat array."""
    return np.lib.stride_tricks.as_strided(
        flat[at:], shape, (row * flat.itemsize, flat.itemsize), writeable=True
    )


def in_rows(matrix, column):
    """Return arrays of NaN with a row from ``column`` on, in no order, and their addresses."""
    rows = [None] * len(matrix)
    for i in np.random.default_rng(0).permutation(len(matrix)):
        rows[i] = np.full(column + matrix.shape[1] + GAP, np.nan, matrix.dtype)
        rows[i][column : column + matrix.shape[1]] = matrix[i]
    return rows, np.array([row.ctypes.data for row in rows], np.int64)


def product(code, A, B, begin, scale=1.0, transposed=False, least=-np.inf):
    """Return the flat array around a tile of NaN, and the tile, after a call.

    A and B (K, columns) lie between NaN, the rows of A, or of A.T, anywhere; ``begin`` is a row for
    all rows, or a matrix that the result is accumulated into.
    """
    dtype, K = A.dtype, A.shape[1]
    shape = len(A), B.shape[1]
    rows_A, a_rows = in_rows(A.T if transposed or code in THIN_CODES else A, A_AT)
    rows_B, b_rows = in_rows(B, B_AT)
    flat_B, b_row = in_gaps(B.T if code == DOTS_CODE else B, B_AT)
    C, c_row = in_gaps(np.full(shape, np.nan, dtype), C_AT)
    if begin.ndim == 2:
        window(C, C_AT, shape, c_row)[...] = begin
        C0, c0, c0_row = C, C_AT, c_row
    else:
        C0, c0, c0_row = in_gaps(begin[np.newaxis], C0_AT)[0], C0_AT, 0
    factors = [*rows_A, *rows_B, flat_B]
    before = [factor.tobytes() for factor in factors]
    call(
        code + (TRANSPOSED if transposed else 0), C, C_AT, c_row, a_rows, A_AT, flat_B, B_AT, b_row,
        b_rows, K, C0, c0, c0_row, dtype.type(scale), dtype.type(least),
    )  # fmt: skip
    assert [factor.tobytes() for factor in factors] == before  # only read
    return C, window(C, C_AT, shape, c_row)


def factors(code, K, dtype):
    """Return A, B and a matrix to begin from, of random numbers."""
    rng = np.random.default_rng(1000 * code + K)
    rows, columns = rows_of(code), columns_of(code, np.dtype(dtype).itemsize)
    shapes = (rows, K), (K, columns), (rows, columns)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def assert_rounded(actual, expected, magnitude):
    """Compare with float64, within the rounding of a sum whose terms have this magnitude."""
    bound = 20 * np.finfo(actual.dtype).eps * magnitude
    assert (np.abs(actual - expected) <= bound).all()


def assert_is_product(C, A, B, first, least=-np.inf):
    """Compare with ``max(least, first + A @ B)`` in float64."""
    A, B, first = (factor.astype(np.float64) for factor in (A, B, first))
    magnitude = np.abs(A) @ np.abs(B) + np.abs(first)
    assert_rounded(C, np.maximum(A @ B + first, least), magnitude)


BEGINNINGS = {
    "zeros": (lambda begin: np.zeros_like(begin[0]), 1.0),
    "a row for all": (lambda begin: begin[0], 1.0),
    "itself": (lambda begin: begin, 1.0),
    "itself, scaled": (lambda begin: begin, 0.75),
}


@pytest.mark.parametrize("transposed", [False, True], ids=["A", "A.T"])
@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("K", [0, 1, 2, 7, 100])
@by_code
@by_dtype
def test_a_tile_is_the_product_and_what_it_begins_from(dtype, code, K, beginning, transposed):
    A, B, begin = factors(code, K, dtype)
    choose, scale = BEGINNINGS[beginning]
    begin = choose(begin)
    _, C = product(code, A, B, begin, scale, transposed)
    assert_is_product(C, A, B, scale * begin.astype(np.float64))


@pytest.mark.parametrize("K", [0, 1, 7])
@by_code
@by_dtype
def test_nothing_outside_the_tile_is_written(dtype, code, K):
    A, B, begin = factors(code, K, dtype)
    C, inside = product(code, A, B, begin[0])
    assert np.isfinite(inside).all()
    inside[...] = np.nan
    assert np.isnan(C).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@by_code
@by_dtype
def test_what_is_not_finite_stays_in_its_row_or_its_column(dtype, code, value):
    A, B, begin = factors(code, 7, dtype)
    A[2, 3] = B[5, -1] = value
    _, C = product(code, A, B, begin[0])
    touched = np.zeros(C.shape, bool)
    touched[2] = touched[:, -1] = True
    np.testing.assert_array_equal(~np.isfinite(C), touched)


@pytest.mark.parametrize("least", [0.0, -0.5])
@by_code
@by_dtype
def test_what_is_less_than_the_least_becomes_it(dtype, code, least):
    A, B, begin = factors(code, 7, dtype)
    A[2, 3] = np.nan
    _, everything = product(code, A, B, begin[0])
    _, C = product(code, A, B, begin[0], least=least)
    np.testing.assert_array_equal(C, np.maximum(everything, least))
    assert (least == C).any()


@pytest.mark.skipif(JIT_DISABLED, reason="NumPy's product adds in an order of its own")
class TestBits:
    """A sum has the same bits wherever in whatever tile it is computed."""

    @staticmethod
    def bits(code, A, B, begin):
        columns = columns_of(code, A.itemsize)
        return product(code, A, B[:, :columns], begin[:columns])[1]

    @by_code
    @by_dtype
    def test_of_every_width(self, dtype, code):
        A, B, begin = factors(CODES[-1], 100, dtype)
        expected = self.bits(CODES[-1], A, B, begin[0])
        C = self.bits(code, A, B, begin[0])
        np.testing.assert_array_equal(C, expected[:, : C.shape[1]])

    @by_code
    @by_dtype
    def test_at_every_column(self, dtype, code):
        A, B, begin = factors(code, 100, dtype)
        expected = self.bits(code, A, B, begin[0])
        for shift in range(1, B.shape[1]):
            C = self.bits(code, A, np.roll(B, shift, axis=1), np.roll(begin[0], shift))
            np.testing.assert_array_equal(C, np.roll(expected, shift, axis=1))

    @by_code
    @by_dtype
    def test_in_every_row(self, dtype, code):
        A, B, begin = factors(code, 100, dtype)
        expected = self.bits(code, A, B, begin[0])
        for shift in range(1, TILE_ROWS):
            C = self.bits(code, np.roll(A, shift, axis=0), B, begin[0])
            np.testing.assert_array_equal(C, np.roll(expected, shift, axis=0))

    @by_code
    @by_dtype
    def test_in_two_parts(self, dtype, code):
        A, B, begin = factors(code, 100, dtype)
        _, first = product(code, A[:, :37], B[:37], begin)
        _, both = product(code, A[:, 37:], B[37:], first)
        np.testing.assert_array_equal(both, product(code, A, B, begin)[1])

    @by_code
    @by_dtype
    def test_of_a_transposed_factor(self, dtype, code):
        A, B, begin = factors(code, 100, dtype)
        _, straight = product(code, A, B, begin)
        np.testing.assert_array_equal(product(code, A, B, begin, transposed=True)[1], straight)


# --- one row -----------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [0, 1, 7, 100])
@by_code
@by_dtype
def test_a_tile_of_one_row_is_the_product_and_writes_no_other(dtype, code, K):
    A, B, begin = factors(code + SINGLE, K, dtype)
    around, C = product(code + SINGLE, A, B, begin[0], least=0.0)
    assert C.shape == (1, columns_of(code, C.itemsize))
    assert_is_product(C, A, B, begin[0], least=0.0)
    C[...] = np.nan
    assert np.isnan(around).all()


@pytest.mark.skipif(JIT_DISABLED, reason="NumPy's product adds in an order of its own")
@by_code
@by_dtype
def test_a_tile_of_one_row_has_the_bits_of_any_other(dtype, code):
    A, B, begin = factors(code, 100, dtype)
    _, expected = product(code, A, B, begin[0])
    _, C = product(code + SINGLE, A[3:4], B, begin[0])
    np.testing.assert_array_equal(C, expected[3:4])


# --- thin columns --------------------------------------------------------------------------------

by_thin_code = pytest.mark.parametrize("code", THIN_CODES)


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("K", [0, 1, 7, 100])
@by_thin_code
@by_dtype
def test_a_thin_tile_is_the_product_of_columns_and_rows_anywhere(dtype, code, K, beginning):
    A, B, begin = factors(code, K, dtype)
    choose, scale = BEGINNINGS[beginning]
    begin = choose(begin)
    around, C = product(code, A, B, begin, scale)
    assert C.shape == (THIN, (code - THIN_CODE + 1) * simd.lanes(C.itemsize))
    assert_is_product(C, A, B, scale * begin.astype(np.float64))
    C[...] = np.nan
    assert np.isnan(around).all()


@pytest.mark.skipif(JIT_DISABLED, reason="NumPy's product adds in an order of its own")
@by_thin_code
@by_dtype
def test_a_thin_tile_has_the_bits_of_any_other(dtype, code):
    A, B, begin = factors(code, 100, dtype)
    _, C = product(code, A, B, begin)
    width = columns_of(CODES[0], C.itemsize)
    rows, first = np.zeros((2, TILE_ROWS, 100), dtype), np.zeros((TILE_ROWS, width), dtype)
    rows[0, :THIN], first[:THIN] = A, begin[:, :width]
    _, expected = product(CODES[0], rows[0], B[:, :width], first, transposed=True)
    np.testing.assert_array_equal(C[:, :width], expected[:THIN])


@pytest.mark.parametrize("least", [-np.inf, 0.0])
@pytest.mark.parametrize("K", [0, 1, 2, 15, 16, 17, 31, 32, 100])
@by_dtype
def test_dots_are_the_product_for_every_end_of_a_row(dtype, K, least):
    rng = np.random.default_rng(K)
    A, B, begin = (rng.normal(size=s).astype(dtype) for s in ((TILE_ROWS, K), (K, THIN), (THIN,)))
    around, C = product(DOTS_CODE, A, B, begin, least=least)
    assert_is_product(C, A, B, begin, least)
    C[...] = np.nan
    assert np.isnan(around).all()


@pytest.mark.skipif(JIT_DISABLED, reason="NumPy's product adds in an order of its own")
@by_dtype
def test_dots_have_the_same_bits_in_every_row_and_column(dtype):
    rng = np.random.default_rng(0)
    A, B, begin = (
        rng.normal(size=s).astype(dtype) for s in ((TILE_ROWS, 101), (101, THIN), (THIN,))
    )
    _, C = product(DOTS_CODE, A, B, begin)
    _, turned = product(DOTS_CODE, A[::-1], B[:, ::-1], begin[::-1])
    np.testing.assert_array_equal(turned, C[::-1, ::-1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@by_dtype
def test_what_is_not_finite_stays_in_its_dots(dtype, value):
    A, B, begin = np.ones((TILE_ROWS, 40), dtype), np.ones((40, THIN), dtype), np.ones(THIN, dtype)
    A[2, 39] = value
    _, C = product(DOTS_CODE, A, B, begin, least=0.0)
    touched = np.zeros(C.shape, bool)
    touched[2] = True
    np.testing.assert_array_equal(~np.isfinite(C), touched)


# --- the widths there are ------------------------------------------------------------------------

by_itemsize = pytest.mark.parametrize("itemsize", [4, 8])


@by_itemsize
def test_the_code_of_some_columns_is_that_of_the_narrowest_tile_that_has_them(itemsize):
    widths = {code: columns_of(code, itemsize) for code in CODES}
    for columns in range(1, TILE_VECTORS * simd.lanes(itemsize) + 1):
        enough = [code for code, width in widths.items() if width >= columns]
        assert code_of(columns, itemsize) == min(enough)


@by_itemsize
def test_codes_are_in_the_order_of_their_widths(itemsize):
    widths = [columns_of(code, itemsize) for code in CODES]
    assert widths == sorted(widths)
    assert widths[0] == tail_lanes(itemsize) >= 1
    assert widths[-1] == TILE_VECTORS * simd.lanes(itemsize)


@by_code
@by_dtype
def test_kernels_know_the_same_widths(dtype, code):
    array = np.zeros(1, dtype)
    assert columns_in_kernel(code, array) == columns_of(code, array.itemsize)


def test_a_tile_and_what_it_multiplies_fit_into_the_registers():
    assert TILE_ROWS * TILE_VECTORS + TILE_VECTORS + 1 <= simd.REGISTERS
    assert THIN * THIN_VECTORS + THIN_VECTORS + 1 <= simd.REGISTERS


def test_every_tile_has_a_code_of_its_own():
    widths = [code + other for other in (0, TRANSPOSED, SINGLE) for code in CODES]
    codes = [*widths, *THIN_CODES, DOTS_CODE]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert DOTS_CODE < SINGLE < min(code for code in widths if code > DOTS_CODE)


# --- the machine code ----------------------------------------------------------------------------


def assembly(code, dtype):
    """Return the machine code of a tile of one width."""

    @numba.njit(error_model="numpy")
    def only(C, c, c_row, a_rows, a, B, b, b_row, b_rows, K, C0, c0, c0_row, scale, least):
        tile(
            code, C, c, c_row, a_rows, a, B, b, b_row, b_rows, K, C0, c0, c0_row, scale, least,
            0, 0, 0,
        )  # fmt: skip

    T, n = numba.from_dtype(np.dtype(dtype)), numba.intp
    only.compile((T[::1], n, n, n, n, T[::1], n, n, n, n, T[::1], n, n, T, T))
    (text,) = only.inspect_asm().values()
    return text


def inner_loop(text):
    """Return the instructions of the block with the most multiply-adds that jumps to itself."""
    label, blocks = None, {}
    for line in text.splitlines():
        found = re.match(r"(\.?\w+):", line)
        if found:
            label = found.group(1)
            blocks[label] = []
        elif label and re.match(r"\s+[a-z]", line):
            blocks[label].append(line.strip())
    loops = [
        block
        for label, block in blocks.items()
        if any(re.match(rf"j\w+\s+{re.escape(label)}$", line) for line in block)
    ]
    return max(loops, key=lambda block: len(multiply_adds(block)))


def multiply_adds(block):
    return [line for line in block if line.startswith("vfmadd")]


needs_x86 = pytest.mark.skipif(
    JIT_DISABLED or "fma" not in target_features(),
    reason="there is no machine code of an x86-64 with multiply-add",
)
WIDEST_AND_RAGGED = pytest.mark.parametrize(
    "code",
    [CODES[-1], CODES[-2], CODES[-1] + TRANSPOSED, CODES[-2] + TRANSPOSED, THIN_CODES[-1]],
    ids=[
        "whole vectors",
        "with a narrow one",
        "transposed",
        "transposed, with a narrow one",
        "thin",
    ],
)


@needs_x86
@WIDEST_AND_RAGGED
@by_dtype
def test_the_sums_never_leave_the_registers(dtype, code):
    text = assembly(code, dtype)
    loop = inner_loop(text)
    stack = r"\(%rsp" + (r"|\(%rbp" if re.search(r"movq\s+%rsp, %rbp", text) else "")
    assert [line for line in loop if re.search(stack, line)] == []


@needs_x86
@WIDEST_AND_RAGGED
@by_dtype
def test_a_round_of_the_inner_loop_is_one_multiply_add_for_each_vector_of_the_tile(dtype, code):
    loop = inner_loop(assembly(code, dtype))
    vectors = len(widths_of(code, np.dtype(dtype).itemsize))
    assert len(multiply_adds(loop)) == rows_of(code) * vectors


@needs_x86
@WIDEST_AND_RAGGED
@by_dtype
def test_the_inner_loop_uses_the_widest_registers(dtype, code):
    name = {64: "%zmm", 32: "%ymm", 16: "%xmm"}[simd.REGISTER_BYTES]
    loop = multiply_adds(inner_loop(assembly(code, dtype)))
    wide = [line for line in loop if name in line]
    widths = widths_of(code, np.dtype(dtype).itemsize)
    assert len(wide) == rows_of(code) * widths.count(simd.lanes(np.dtype(dtype).itemsize))


@needs_x86
@WIDEST_AND_RAGGED
@by_dtype
def test_the_inner_loop_stores_nothing(dtype, code):
    loop = inner_loop(assembly(code, dtype))
    stores = [line for line in loop if re.match(r"v?mov\S*\s+%\S+, .*\)$", line)]
    assert stores == []
