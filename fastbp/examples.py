"""Examples as the compiled loop reads them: floats, bytes, or only what is not zero."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ._arrays import Array, as_kernel_array, is_finite, require_numbers
from .kernels import tables
from .kernels.compress import (
    compress,
    count_in_sample,
    count_nonzeros,
    count_segments,
    encode,
)
from .plan import Plan

# Share of non-zeros below which skipping zeros is faster: the two meet between 0.4 and 0.5.
SPARSE_BELOW = 0.35
# Columns of sparse inputs are kept in 16 bits.
SPARSE_COLUMNS = 1 << 16
# Rows looked at to learn the density, and rows compressed in a call (some 10 ms).
SAMPLE_ROWS, CALL_ROWS = 512, 4096
# Of examples that are looked at once, which must be compressed each time: skipping zeros gains
# where there are more of them, and work enough for each number that is not zero.
ONCE_SAMPLE_ROWS, ONCE_SPARSE_BELOW = 16, 0.22
ONCE_INPUTS, ONCE_OUTPUTS = 256, 32

# Numbers that are converted at a time: a millisecond's work.
PIECE = 1 << 20


class SparseRows:
    """A sparse matrix of SciPy, checked: rows of columns in ascending order, each once.

    Parameters
    ----------
    where, name : str
        For messages.
    x : scipy.sparse matrix or array, (N, D), of any format
        Not changed.  Real numbers; D at most 65,536.

    Attributes
    ----------
    shape : (N, D)
    starts, columns : int64 arrays
        Where each row begins in columns and values, and where the last one ends.
    values : array

    Raises
    ------
    TypeError, ValueError
        For numbers that are not real, for too many columns, and for a damaged matrix.
    """

    def __init__(self, where: str, name: str, x: Any) -> None:
        if x.ndim != 2 or x.shape[1] > SPARSE_COLUMNS:
            raise ValueError(
                f"{where}: {name} has shape {x.shape}, expected (N, D) with D at most "
                f"{SPARSE_COLUMNS} for sparse inputs"
            )
        require_numbers(where, name, x)
        rows = x.tocsr()
        self.shape: tuple[int, int] = x.shape
        self._take(where, name, rows)
        if not self._is_ascending():
            rows = type(rows)((self.values, self.columns, self.starts), shape=x.shape)
            rows.sum_duplicates()  # sorts, too
            self._take(where, name, rows)

    def _take(self, where: str, name: str, rows: Any) -> None:
        """Copy the arrays of a CSR matrix, and check every index of the copy."""
        self.starts = np.array(rows.indptr, np.int64)
        end = int(self.starts[-1]) if len(self.starts) else -1
        self.columns = np.array(rows.indices[: max(0, end)], np.int64)
        self.values = np.array(rows.data[: max(0, end)])
        if (
            len(self.starts) != self.shape[0] + 1
            or self.starts[0] != 0
            or (np.diff(self.starts) < 0).any()
            or not end == len(self.columns) == len(self.values)
            or (end and not 0 <= self.columns.min() <= self.columns.max() < self.shape[1])
        ):
            raise ValueError(f"{where}: {name} is a damaged sparse matrix: its indices are wrong")

    def _is_ascending(self) -> bool:
        """Whether each row's columns ascend; SciPy's own flag may be older than its arrays."""
        rising = np.diff(self.columns) > 0
        between = self.starts[1:-1]  # from one row to the next they need not
        rising[between[(between > 0) & (between < len(self.columns))] - 1] = True
        return bool(rising.all())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        """Return some rows as a dense array."""
        chosen = np.arange(len(self))[rows]
        dense = np.zeros((len(chosen), self.shape[1]), self.values.dtype)
        for i, n in enumerate(chosen):
            row = slice(self.starts[n], self.starts[n + 1])
            dense[i, self.columns[row]] = self.values[row]
        return dense

    def first_nonfinite(self) -> tuple[int, int, float] | None:
        """Return row, column and value of the first NaN or infinity."""
        if self.values.dtype.kind != "f" or np.isfinite(self.values).all():
            return None
        p = int(np.argmin(np.isfinite(self.values)))
        row = int(np.searchsorted(self.starts, p, "right")) - 1
        return row, int(self.columns[p]), float(self.values[p])


def as_data(where: str, x: Array, t: Array, dtype: np.dtype[Any]) -> tables.Data:
    """Return examples for the loop, dense.

    Parameters
    ----------
    where : str
        For messages.
    x : (N, D) or (N, ...) array
        Bytes stay bytes; any other type becomes ``dtype``, in one copy, unless it is that already.
    t : (N,) int64 labels, or (N, C) rows of ``dtype``
    dtype : float32 or float64
    """
    rows = x.reshape(len(x), -1)
    if rows.dtype == np.uint8:
        writable = rows if rows.flags.carray else rows.copy(order="C")
        return _data(t, dtype, source=tables.BYTES, bytes=writable)
    return _data(t, dtype, x=_converted(where, rows, dtype))


def _converted(where: str, rows: Array, dtype: np.dtype[Any]) -> Array:
    """Return rows as the kernels read them, converted in pieces: Ctrl-C gets its turn."""
    if rows.size <= PIECE or (rows.dtype == dtype and rows.flags.carray):
        return as_kernel_array(where, "x", rows, dtype)
    converted = np.empty(rows.shape, dtype)
    step = max(1, PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        converted[piece] = as_kernel_array(where, "x", rows[piece], dtype)
    return converted


def _data(t: Array, dtype: np.dtype[Any], **inputs: Any) -> tables.Data:
    """Return targets, labels or rows, and inputs."""
    inputs["labels" if t.ndim == 1 else "targets"] = t
    return _nothing(dtype)._replace(**inputs)


@functools.cache
def _nothing(dtype: np.dtype[Any]) -> tables.Data:
    floats, integers = np.empty((0, 0), dtype), np.empty(0, np.int64)
    return tables.Data(
        source=tables.FLOATS,
        x=floats,
        bytes=np.empty((0, 0), np.uint8),
        columns=np.empty(0, np.uint16),
        values=np.empty(0, dtype),
        codes=np.empty(0, np.uint8),
        table=np.empty(0, dtype),
        starts=integers,
        stops=integers,
        masks=integers,
        edges=integers,
        labels=integers,
        targets=floats,
        out=floats,
        params=integers,
        grads=integers,
    )


def is_worth_compressing(x: Array | SparseRows) -> bool:
    """Whether so few numbers are not zero: judged by some rows, spread over all of them."""
    if isinstance(x, SparseRows):
        return True
    if x[:1].size > SPARSE_COLUMNS:
        return False
    sample = x[:: max(1, len(x) // SAMPLE_ROWS)]
    # Compared first: NumPy counts booleans ten times as fast as numbers.
    return bool(np.count_nonzero(sample != 0) < SPARSE_BELOW * sample.size)


def is_mostly_zeros(x: Array) -> bool:
    """Whether to compress x, rows of floats, pays for a single use of it in a big layer."""
    step = max(1, len(x) // ONCE_SAMPLE_ROWS)
    size = -(-len(x) // step) * x.shape[1]
    return x.shape[1] <= SPARSE_COLUMNS and count_in_sample(x, step) < ONCE_SPARSE_BELOW * size


def as_batches(where: str, x: Array, t: Array, plan: Plan, W: Array | None = None) -> tables.Data:
    """Return examples for programs that look at each once, and are to skip zeros if that is faster.

    Each batch is compressed right before it is used.

    Parameters
    ----------
    where : str
        For messages.
    x, t : arrays
        As for :func:`as_data`.
    plan : Plan
        Of the network.
    W : (D, H) array, optional
        Weights of the first layer.  Beside one that is not finite zeros are not skipped: 0 times
        infinity is NaN.
    """
    data = as_data(where, x, t, plan.dtype)
    big = plan.sizes[0] >= ONCE_INPUTS and plan.sizes[1] >= ONCE_OUTPUTS
    if big and data.source == tables.FLOATS and is_mostly_zeros(data.x):
        if W is not None and not is_finite(W):
            return data
        data = data._replace(source=tables.SPARSE, **plan.room_for_nonzeros())
    return data


def as_sparse_data(where: str, x: Array | SparseRows, t: Array, plan: Plan) -> tables.Data:
    """Return examples for the loop, without their zeros.

    Parameters
    ----------
    where : str
        For messages.
    x : (N, D) or (N, ...) array, or SparseRows
    t : (N,) int64 labels, or (N, C) rows of the plan's type
    plan : Plan
        Of the network, which decides where rows are cut.
    """
    edges = plan.segment_edges()
    counts = np.empty((len(x), len(edges) - 1), np.int64)
    starts = np.zeros(counts.size + 1, np.int64)
    if isinstance(x, SparseRows):
        masks = _room_for_masks(counts, len(x.columns), plan)
        count_segments(counts, masks, x.starts, x.columns, edges)
        np.cumsum(counts, out=starts[1:])
        columns, values = x.columns.astype(np.uint16), x.values.astype(plan.dtype)
        numbers = {"columns": columns, "values": values}
        if masks.size:
            numbers = _encoded(values) or numbers
    else:
        rows = x.reshape(len(x), -1)

        def floats(piece: slice) -> Array:
            return as_kernel_array(where, "x", rows[piece], plan.dtype)

        for piece in _pieces(len(x), CALL_ROWS):
            count_nonzeros(counts[piece], floats(piece), edges)
        np.cumsum(counts, out=starts[1:])
        masks = _room_for_masks(counts, starts[-1], plan)
        scale = None
        if masks.size:
            scale = _scale_of(floats(slice(None, None, max(1, len(x) // SAMPLE_ROWS))))
        numbers = _compressed(floats, plan.dtype, starts, masks, edges, scale)
    return _data(
        t, plan.dtype, source=tables.SPARSE, starts=starts, stops=starts[1:], masks=masks,
        edges=edges, **numbers,
    )  # fmt: skip


def _pieces(count: int, size: int) -> list[slice]:
    return [slice(start, min(count, start + size)) for start in range(0, count, size)]


def _room_for_masks(counts: Array, nonzeros: int, plan: Plan) -> Array:
    """Return memory for the masks of all segments; none if no batch would be updated by them."""
    places = len(counts) * plan.sizes[0]
    useful = tables.COLUMN_ROWS * nonzeros >= tables.NUMBERS_A_COLUMN * places
    return np.empty(counts.size * plan.masks_a_segment() if useful else 0, np.int64)


def _compressed(
    floats: Callable[[slice], Array],
    dtype: np.dtype[Any],
    starts: Array,
    masks: Array,
    edges: Array,
    scale: float | None,
) -> dict[str, Array]:
    """Return the non-zeros of some rows, by the names they have in the examples; masks are set.

    With a scale as codes, if all values have one.
    """
    segments = len(edges) - 1
    N = (len(starts) - 1) // segments
    words = masks.size // max(1, N * segments)
    pieces = [slice(p.start * segments, p.stop * segments) for p in _pieces(N, CALL_ROWS)]
    room = starts[-1]
    if scale is not None:
        room = max(starts[piece.stop] - starts[piece.start] for piece in pieces)
    columns, values = np.empty(room, np.uint16), np.empty(room, dtype)
    codes, table = np.empty(0 if scale is None else starts[-1], np.uint8), _no_values(dtype)
    for piece in pieces:
        begin, end = starts[piece.start], starts[piece.stop]
        to = slice(begin, end) if scale is None else slice(0, end - begin)
        compress(
            columns[to],
            values[to],
            masks[piece.start * words : piece.stop * words],
            floats(slice(piece.start // segments, piece.stop // segments)),
            starts[piece.start : piece.stop + 1] - begin,
            edges,
        )
        if scale is not None and not encode(codes[begin:end], table, values[to], scale):
            return _compressed(floats, dtype, starts, masks, edges, None)
    if scale is None:
        return {"columns": columns, "values": values}
    return {"codes": codes, "table": table}


def _encoded(values: Array) -> dict[str, Array] | None:
    """Return codes of values, and the table of them; None if not all have one."""
    codes, table = np.empty(len(values), np.uint8), _no_values(values.dtype)
    scale = _scale_of(values[:: max(1, len(values) // PIECE)])
    for piece in _pieces(len(values), PIECE):
        if not encode(codes[piece], table, values[piece], scale):
            return None
    return {"codes": codes, "table": table}


def _no_values(dtype: np.dtype[Any]) -> Array:
    return np.zeros(1 << 8, dtype)


def _scale_of(values: Array) -> float:
    """Return what times a value is its code: bytes are their own, and so they are over 255."""
    largest = float(values.max(initial=0))
    if largest <= 0 or (largest <= 255 and (values == np.rint(values)).all()):
        return 1.0
    return 255 / largest
