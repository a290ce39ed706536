"""Examples as the compiled loop reads them: floats, bytes, or only what is not zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import Array, as_kernel_array
from .kernels import step
from .kernels.sparse import compress, count_nonzeros
from .plan import Plan

# Share of non-zeros below which skipping zeros is faster: the two meet between 0.4 and 0.5.
SPARSE_BELOW = 0.35
# Rows looked at to learn the density, and rows compressed in a call (some 10 ms).
SAMPLE_ROWS, CALL_ROWS = 512, 4096


def as_data(where: str, x: Array, t: Array, dtype: np.dtype[Any]) -> step.Data:
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
    data = _empty(t, dtype)
    if rows.dtype == np.uint8 and rows.flags.carray:
        return data._replace(source=step.BYTES, bytes=rows)
    return data._replace(x=as_kernel_array(where, "x", rows, dtype))


def _empty(t: Array, dtype: np.dtype[Any]) -> step.Data:
    floats, integers = np.empty((0, 0), dtype), np.empty(0, np.int64)
    return step.Data(
        source=step.FLOATS,
        x=floats,
        bytes=np.empty((0, 0), np.uint8),
        columns=np.empty(0, np.uint16),
        values=np.empty(0, dtype),
        starts=integers,
        edges=integers,
        labels=t if t.ndim == 1 else integers,
        targets=floats if t.ndim == 1 else t,
        out=floats,
    )


def density(x: Array) -> float:
    """Return the share of non-zeros, of a sample of rows spread over all of them."""
    sample = x[:: max(1, len(x) // SAMPLE_ROWS)]
    return np.count_nonzero(sample) / max(1, sample.size)


def compressed(data: step.Data, plan: Plan) -> step.Data:
    """Return the same examples without their zeros.

    Parameters
    ----------
    data : Data
        Dense.
    plan : Plan
        Of the network, which decides where rows are cut.
    """
    x = data.x if data.source == step.FLOATS else data.bytes
    N, D = x.shape
    edges = plan.segment_edges()
    segments = len(edges) - 1
    counts = np.empty((N, segments), np.int64)
    pieces = [slice(start, start + CALL_ROWS) for start in range(0, N, CALL_ROWS)]
    for piece in pieces:
        count_nonzeros(counts[piece], _floats(x[piece], plan), edges)
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    columns = np.empty(starts[-1] + 1, np.uint16)
    values = np.empty(starts[-1] + 1, plan.dtype)
    for piece in pieces:
        compress(columns, values, _floats(x[piece], plan), starts[piece.start * segments])
    return data._replace(
        source=step.SPARSE,
        x=np.empty((0, 0), plan.dtype),
        bytes=np.empty((0, 0), np.uint8),
        columns=columns,
        values=values,
        starts=starts,
        edges=edges,
    )


def _floats(x: Array, plan: Plan) -> Array:
    return x.astype(plan.dtype, copy=False)
