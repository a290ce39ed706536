"""Rows on their way from memory before they are needed.

Examples lie anywhere, and nothing but the row numbers tells where the next one is: the processor
has to be told.  The next batch is fetched during the update (:func:`.backward.update`), of a big
one what a cache holds; its other rows while those before them are multiplied.  A batch of 4096
images, whose 13 MB come from memory twice in a step, took half as long again without.  Predictions
and single gradients fetch nothing in advance; where their rows, which lie one behind the other, are
not halved, each tile fetches those of the next one.
"""

from __future__ import annotations

from typing import Any

from .jit import part
from .simd import prefetch
from .tables import LINE, OPERATION, UPDATE

# Of the next batch so much is fetched in advance: as much as a second-level cache has.
AHEAD_BYTES = 1024 * 1024


@part
def rows_in_advance(inputs: int, itemsize: int) -> int:
    """Return how many rows of the next batch are fetched during the update."""
    return AHEAD_BYTES // (inputs * itemsize)


@part
def has_update(net: Any) -> bool:
    """Whether a program ends with the update, and fetches the next batch meanwhile."""
    return net.program[net.program.shape[0] - 1, OPERATION] == UPDATE


@part
def prefetch_rows(net: Any, table: int, first: int, last: int, k0: int, k1: int) -> None:
    """Prefetch columns k0 to k1 of rows first to last, whose addresses are in a table."""
    size = net.buffer.itemsize
    for n in range(first, last):
        row = net.rows[table + n]
        for address in range(row + k0 * size, row + k1 * size, LINE):
            prefetch(address)
