"""Inputs without their zeros: counted, compressed, and their values as bytes where few differ.

What a row has left lies in segments, ranges of columns, as :mod:`.sparse` walks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel, part
from .simd import MASK_BITS, bit, low_bits, lowest_bit, nonzero_bits, view, without_lowest_bit


@kernel("int64[:, ::1], T[:, ::1], int64[::1]")
def count_nonzeros(counts: Any, x: Any, edges: Any) -> None:
    """Number of non-zeros of each row in each range of columns.

    Parameters
    ----------
    counts : (N, S) int64 - overwritten
    x : (N, D) float32 or float64
    edges : (S + 1,) int64 - where the ranges begin, and where the last one ends
    """
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        for s in range(counts.shape[1]):
            row = x[n, edges[s] : edges[s + 1]]
            count = 0
            for k in range(row.size):
                count += row[k] != zero
            counts[n, s] = count


@kernel("T[:, ::1], int64")
def count_in_sample(x: Any, step: int) -> int:
    """Number of non-zeros in every ``step``-th row of x, (N, D) float32 or float64, from row 0."""
    zero = x.dtype.type(0)
    count = 0
    for n in range(0, x.shape[0], step):
        for k in range(x.shape[1]):
            count += x[n, k] != zero
    return count


@part
def nonzeros_from(flat: Any, row: int, k: int, k1: int) -> int:
    """Return which of the next columns of a row, from k on and before k1, are not zero: a mask."""
    bits = nonzero_bits(flat, row + k)
    if k1 - k < MASK_BITS:
        bits &= low_bits(k1 - k)
    return bits


@part
def note_nonzeros(masks: Any, mask: int, x: Any, row: int, k0: int, k1: int) -> None:
    """Note which of columns k0 to k1 of a row are not zero: masks from ``mask`` on.

    The row begins ``row`` elements behind the first of x.
    """
    flat = view(x, 0, x.size)
    for k in range(k0, k1, MASK_BITS):
        masks[mask + (k - k0) // MASK_BITS] = nonzeros_from(flat, row, k, k1)


@part
def compress_segment(
    columns: Any, values: Any, p: int, stop: int, masks: Any, mask: int,
    x: Any, row: int, k0: int, k1: int,
) -> int:  # fmt: skip
    """Put the non-zeros in columns k0 to k1 of a row to places p to stop; returns where they end.

    Their masks go to ``masks`` from ``mask`` on, if there are any.  The row begins ``row`` elements
    behind the first of x.
    """
    flat = view(x, 0, x.size)
    for k in range(k0, k1, MASK_BITS):
        bits = nonzeros_from(flat, row, k, k1)
        rest = bits
        while rest != 0 and p < stop:
            column = k + lowest_bit(rest)
            columns[p] = np.uint16(column)
            values[p] = flat[row + column]
            rest = without_lowest_bit(rest)
            p += 1
        if masks.size:
            masks[mask + (k - k0) // MASK_BITS] = bits ^ rest  # those that have a place
    return p


@kernel("uint16[::1], T[::1], int64[::1], T[:, ::1], int64[::1], int64[::1]")
def compress(columns: Any, values: Any, masks: Any, x: Any, starts: Any, edges: Any) -> None:
    """Columns, values and masks of the non-zeros of all rows, segment by segment.

    Many elements are compared with zero at once, and the rest is done for non-zeros alone.  A
    segment never takes more than its place, and is filled up with zeros, should somebody have
    changed x since it was counted.

    Parameters
    ----------
    columns, values : (nonzeros,) - overwritten from ``starts[0]`` on
    masks : (N * S * M,) int64 - overwritten: a bit for each column of a segment; or empty
    x : (N, D) float32 or float64, D <= 65536
    starts : (N * S + 1,) int64 - where the segments of these rows begin, and the last one ends
    edges : (S + 1,) int64 - the columns between which a row is cut
    """
    zero, D = x.dtype.type(0), x.shape[1]
    segments = edges.size - 1
    words = masks.size // max(1, x.shape[0] * segments)
    masks[:] = 0
    for n in range(x.shape[0]):
        for s in range(segments):
            p, stop = starts[n * segments + s], starts[n * segments + s + 1]
            mask = (n * segments + s) * words
            p = compress_segment(
                columns, values, p, stop, masks, mask, x, n * D, edges[s], edges[s + 1]
            )
            for q in range(p, stop):
                columns[q] = np.uint16(edges[s])
                values[q] = zero


@kernel("int64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1]")
def count_segments(counts: Any, masks: Any, starts: Any, columns: Any, edges: Any) -> None:
    """Number and masks of the stored elements of each row of a CSR matrix in each range of columns.

    Parameters
    ----------
    counts : (N, S) int64 - overwritten
    masks : (N * S * M,) int64 - overwritten: a bit for each column of a segment; or empty
    starts : (N + 1,) int64 - where each row begins, and where the last one ends
    columns : (nonzeros,) int64, in [0, D), ascending within a row
    edges : (S + 1,) int64, from 0 to D
    """
    segments = counts.shape[1]
    words = masks.size // max(1, counts.size)
    masks[:] = 0
    for n in range(counts.shape[0]):
        s = 0
        counts[n, :] = 0
        for p in range(starts[n], starts[n + 1]):
            while columns[p] >= edges[s + 1]:
                s += 1
            if words:
                k = columns[p] - edges[s]
                masks[(n * segments + s) * words + k // MASK_BITS] |= bit(k % MASK_BITS)
            counts[n, s] += 1


@kernel("uint8[::1], T[::1], T[::1], float64")
def encode(codes: Any, table: Any, values: Any, scale: float) -> bool:
    """Write values as bytes, the places of a table that has them to the last bit.

    Parameters
    ----------
    codes : (nonzeros,) uint8 - overwritten
    table : (256,) float32 or float64 - a value gets its place, ``scale`` times itself, if that is
        free; what is free is 0, and the first place remains so
    values : (nonzeros,) of the table's type
    scale : float

    Returns
    -------
    bool
        Whether all have a place: not a 0, nor what would be outside, nor one beside another value.
    """
    zero = table.dtype.type(0)
    for i in range(values.size):
        value = values[i]
        place = float(value) * scale + 0.5
        if not 1.0 <= place < table.size:
            return False
        code = np.uint8(place)
        if table[code] == zero:
            table[code] = value
        elif table[code] != value:
            return False
        codes[i] = code
    return True
