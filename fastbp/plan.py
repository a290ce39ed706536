"""A network laid out for the compiled loop: tables, and one flat buffer.

Weights lie in *panels*, strips of columns as wide as the registers of a tile, so that the kernels
stream through them without packing anything; panels begin on cache lines, and the batch is padded
to whole tiles, so that there is no code for edges.  Users never see this: parameters are packed in
and unpacked into their own plain arrays.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ._arrays import Array
from ._memory import CACHE_LINE, aligned_zeros, round_up
from .kernels import tables
from .kernels.gemm import THIN, THIN_VECTORS, TILE_ROWS, TILE_VECTORS, code_of, columns_of
from .kernels.simd import MASK_BITS, lanes

ACTIVATIONS = {"identity": tables.IDENTITY, "relu": tables.RELU, "sigmoid": tables.SIGMOID}

# A layer with more bytes of weights than this is divided among threads by panels, so that each
# core keeps its own half of W in its second-level cache; a smaller one by rows of the batch, which
# needs no meeting of the threads between the layers.
BIG_LAYER = 512 * 1024

# A first layer with more is divided by halves of its inputs: its weights, and the gathered inputs,
# then stay where they are, too.
SMALL_LAYER = 32 * 1024

# Rows of up to so many cache lines lie close together: a hundred of them are everywhere in the
# first-level cache, and the softmax exponentiates rows as one run of numbers.
FEW_LINES = 4

# Thin columns are worth kernels of their own where sums are at least so long, and registers hold so
# many numbers.  Besides, their tiles read up to TILE_ROWS + lanes - 2 numbers behind an example:
# that must not be more than an example, as the last one is copied.
THIN_INPUTS, THIN_LANES = 64, 8

# Bytes of W that a range of the columns of sparse inputs may need.  Ranges that fit the first-level
# cache would be cheaper to stream and lose more by their number: 24 kB took 15 % longer than this.
RANGE_BYTES = 128 * 1024

# Programs whose batches are consecutive examples, and which update nothing.
CONSECUTIVE = ("predict", "measure")


@dataclasses.dataclass(frozen=True)
class Panel:
    """A strip of columns: which, how wide, and where it lies in the buffer.

    ``thin`` is where one or two columns more lie, those behind the others; or 0.
    """

    column: int
    code: int
    start: int
    row: int
    thin: int = 0

    def width(self, itemsize: int) -> int:
        """Return how many columns are computed."""
        return columns_of(self.code, itemsize) + (THIN if self.thin else 0)


def panels_of(columns: int, itemsize: int) -> list[tuple[int, int, int]]:
    """Cut so many columns into panels: (first column, code, stride of a row).

    One panel if a tile is wide enough; otherwise an even number, for two threads to share, all
    about equally wide.
    """
    width = lanes(itemsize)
    vectors = -(-columns // width)
    count = -(-vectors // TILE_VECTORS)
    if count > 1:
        count += count % 2
    panels, column = [], 0
    for p in range(count):
        whole = vectors * (p + 1) // count - vectors * p // count
        code = code_of(min(whole * width, columns - column), itemsize)
        panels.append((column, code, whole * width))
        column += whole * width
    return panels


class Plan:
    """Tables and memory for a network of some sizes and batches of at most some rows.

    Parameters
    ----------
    sizes : sequence of int
        Widths from the input to the classes.
    activation : {'relu', 'sigmoid', 'identity'}
        Between the layers.
    dtype : float32 or float64
    rows : int
        The largest batch.
    slots : int
        Arrays of the optimizer for each parameter: 0, 1 or 2.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        dtype: Any,
        rows: int,
        slots: int = 0,
    ) -> None:
        self.sizes = tuple(sizes)
        self.dtype = np.dtype(dtype)
        self.rows = round_up(rows, TILE_ROWS)
        self._end = 0
        L = len(sizes) - 1
        self._forward: list[list[Panel]] = []
        self._back: list[list[Panel]] = []
        layers = np.zeros((L, tables.LAYER_COLUMNS), np.int64)
        for l, (K, N) in enumerate(itertools.pairwise(sizes)):
            self._forward.append(self._panels_of_weights(K, N, is_last=l == L - 1))
            layers[l, tables.BIAS] = self._take(round_up(N, lanes(self.dtype.itemsize)))
        self.parameters = self._end
        x_row = self._row(round_up(sizes[0], TILE_ROWS))
        x = self._take(self.rows * x_row)
        table: list[Panel] = []
        line = CACHE_LINE // self.dtype.itemsize
        for l, (K, N) in enumerate(itertools.pairwise(sizes)):
            # A row of W.T for each column of W, and for what pads them to whole registers.
            cut, rows_of_back = panels_of(K, self.dtype.itemsize), round_up(N, line)
            self._back.append(self._panels(cut, rows_of_back) if l else [])
            last = self._forward[l][-1]
            width = last.column + last.width(self.dtype.itemsize)
            row = self._row(width if l == L - 1 else round_up(width, TILE_ROWS))
            first, back = len(table), len(table) + len(self._forward[l])
            table += self._forward[l] + self._back[l]
            layers[l, : tables.BIAS] = (
                K, N, width, ACTIVATIONS["identity" if l == L - 1 else activation],
                x, x_row, *self._rows_of(l), self._take(self.rows * row),
                self._take(self.rows * row), row,
            )  # fmt: skip
            layers[l, tables.HALF] = self._half(K)
            layers[l, tables.FIRST :] = first, back, back, len(table)
            x, x_row = layers[l, tables.H], row
        widest = max(p.row + (THIN if p.thin else 0) for p in table)
        zeros = self._take(max(widest, THIN_VECTORS * lanes(self.dtype.itemsize)))
        turned = max(tables.GROUP, self.longest_range()) * widest
        self._scratch = turned + self._room_to_turn()
        scratch = self._take(tables.MAX_THREADS * self._scratch)
        sums = self._take(tables.HALVES * self.rows * layers[0, tables.H_ROW])
        self.buffer = aligned_zeros(self._end, self.dtype)
        self.layers = layers
        self._pad_logits()
        # The tiles write whole widths; behind them rows of logits stay as they are now.
        logits = self.buffer[layers[-1, tables.H] :][: self.rows * layers[-1, tables.H_ROW]]
        logits.reshape(self.rows, -1)[:, layers[-1, tables.WIDTH] :] = -np.inf
        self.state = aligned_zeros(slots * self.parameters, self.dtype)
        self._room: dict[str, Array] = {}
        self._found: dict[int | None, list[tuple[str, Array, slice]]] = {}
        masks = self.masks_a_segment()
        places = tables.COLUMN_ROWS * (1 + masks) + tables.APART
        self._net = tables.Net(
            self.buffer,
            self.state,
            layers,
            np.array([dataclasses.astuple(p) for p in table], np.int64),
            np.zeros((0, 4), np.int64),
            self._addresses(),
            np.zeros((3, self.rows)),
            np.zeros((len(table), -(-max(sizes[:-1]) // tables.GROUP))),
            aligned_zeros(tables.HALVES * places, np.dtype(np.int64)),
            np.zeros((L, 2)),
            np.array(
                [self.parameters, zeros, scratch, self._scratch, sums, masks, turned],
                np.int64,
            ),
            tile=0,  # these addresses are known once there is compiled code
            sparse=0,
            once=0,
            rule=0,
            exchange=0,
        )

    @property
    def finite(self) -> Array:
        """What the program 'gradient' found of the user's weights: NaN, or all finite."""
        return self._net.finite

    @property
    def nbytes(self) -> int:
        """The bytes of the memory that grows with the network and the batch."""
        arrays = (self.buffer, self.state, *self._room.values())
        return sum(array.nbytes for array in arrays)

    def _rows_of(self, l: int) -> tuple[int, int]:
        """Return where the addresses of the rows of a layer's inputs, and of its gradients, are.

        Those of the first inputs twice, for each half of the inputs.
        """
        before = 0 if l == 0 else tables.HALVES + 1 + 2 * (l - 1)
        return before * self.rows, (before + (tables.HALVES if l == 0 else 1)) * self.rows

    def _addresses(self) -> Array:
        """Return the addresses of the rows of all layers."""
        result = aligned_zeros(self._rows_of(len(self.layers))[0], np.dtype(np.int64))
        size = self.dtype.itemsize
        for layer in self.layers:
            for start, row, to in (
                (tables.X, tables.X_ROW, tables.X_ROWS), (tables.DZ, tables.H_ROW, tables.DZ_ROWS),
            ):  # fmt: skip
                rows = self.buffer.ctypes.data + size * (
                    layer[start] + layer[row] * np.arange(self.rows)
                )
                result[layer[to] : layer[to] + self.rows] = rows
        return result

    def _pad_logits(self) -> None:
        """Let the exponential of what pads the logits be 0."""
        last = self.layers[-1]
        bias = last[tables.BIAS]
        self.buffer[bias + self.sizes[-1] : bias + last[tables.WIDTH]] = -np.inf

    def _take(self, elements: int) -> int:
        """Reserve so many elements, from a cache line on; returns their offset."""
        start = self._end
        self._end = round_up(start + elements, CACHE_LINE // self.dtype.itemsize)
        return start

    def _row(self, columns: int) -> int:
        """Return the stride of rows of so many columns: few cache lines, or an odd number of them.

        A large power of two would put the same column of all rows into the same few places of the
        cache.
        """
        line = CACHE_LINE // self.dtype.itemsize
        lines = -(-columns // line)
        return (lines if lines <= FEW_LINES else lines | 1) * line

    def segment_edges(self) -> Array:
        """Return where the columns of sparse inputs are cut: as many ranges in each half."""
        D, half = self.sizes[0], self._half(self.sizes[0])
        row = self._forward[0][0].row * self.dtype.itemsize
        ranges = max(1, round(D / 2 * row / RANGE_BYTES))
        halves = [np.linspace(a, b, ranges + 1).astype(np.int64) for a, b in ((0, half), (half, D))]
        return np.concatenate([halves[0], halves[1][1:]])

    def longest_range(self) -> int:
        """Return the largest number of columns in a segment of sparse inputs."""
        return int(np.diff(self.segment_edges()).max())

    def _half(self, K: int) -> int:
        """Return where the second half of K inputs begins: whole tiles, and whole cache lines."""
        quantum = math.lcm(TILE_ROWS, CACHE_LINE // self.dtype.itemsize)
        return int(K / 2 / quantum + 0.5) * quantum

    def _panels(self, cut: list[tuple[int, int, int]], rows: int) -> list[Panel]:
        return [Panel(column, code, self._take(rows * row), row) for column, code, row in cut]

    def _panels_of_weights(self, K: int, N: int, is_last: bool) -> list[Panel]:
        """Return the panels of a layer's W; one or two columns behind whole vectors lie apart.

        Not of the last layer: what pads the logits is not what pads another one.
        """
        V, rows = lanes(self.dtype.itemsize), round_up(K, TILE_ROWS)
        cut = panels_of(N, self.dtype.itemsize)
        column, _, row = cut[-1]
        whole = row - V
        is_thin = whole > 0 and N - column - whole <= THIN
        if is_last or not is_thin or K < THIN_INPUTS or V < THIN_LANES:
            return self._panels(cut, rows)
        cut[-1] = column, code_of(whole, self.dtype.itemsize), whole
        panels = self._panels(cut, rows)
        panels[-1] = dataclasses.replace(panels[-1], thin=self._take(rows * THIN))
        return panels

    def _room_to_turn(self) -> int:
        """Return the elements a thread needs for thin columns turned to rows: 0 without them."""
        inputs = [
            K for K, panels in zip(self.sizes, self._forward, strict=False) if panels[-1].thin
        ]
        if not inputs:
            return 0
        longest = max(*inputs, THIN_VECTORS * lanes(self.dtype.itemsize))
        return THIN * round_up(longest, CACHE_LINE // self.dtype.itemsize)

    def masks_a_segment(self) -> int:
        """Return how many masks have a bit for each column of a segment of sparse inputs."""
        return -(-self.longest_range() // MASK_BITS)

    def room_for_nonzeros(self) -> dict[str, Array]:
        """Return columns, values, starts, stops, masks and edges for a batch without its zeros."""
        if not self._room:
            places, edges = self.rows * self.sizes[0], self.segment_edges()
            segments = self.rows * (len(edges) - 1)
            self._room = {
                "columns": np.empty(places, np.uint16),
                "values": np.empty(places, self.dtype),
                "starts": np.zeros(segments, np.int64),
                "stops": np.zeros(segments, np.int64),
                "masks": np.zeros(segments * self.masks_a_segment(), np.int64),
                "edges": edges,
            }
        return self._room

    # --- programs --------------------------------------------------------------------------------

    def _divisions(self, l: int) -> tuple[int, int]:
        """Return how forward (and update) and backward of a layer are divided among threads."""
        bytes_of_weights = self.sizes[l] * self.sizes[l + 1] * self.dtype.itemsize
        forward, back = (
            tables.BY_PANELS if bytes_of_weights > BIG_LAYER and len(panels) > 1 else tables.BY_ROWS
            for panels in (self._forward[l], self._back[l])
        )
        if l == 0 and forward == tables.BY_ROWS and bytes_of_weights > SMALL_LAYER:
            forward = tables.BY_INPUTS
        return forward, back

    def program(self, kind: str, sparse: bool = False, decay: bool = False) -> Array:
        """Return the operations of 'predict', 'measure', 'gradient' or 'train', as a table.

        A row is (operation, layer, division among threads, whether the threads meet before it).
        The batches of 'predict' and 'measure' are consecutive examples; 'gradient' begins with the
        user's parameters, where ``Data.params`` says.  ``sparse`` is for inputs without their
        zeros, ``decay`` for a loss with a weight decay.
        """
        L = len(self.sizes) - 1
        consecutive = kind in CONSECUTIVE
        first = self._divisions(0)[0]
        if sparse:
            first = tables.BY_ROWS if consecutive else tables.BY_INPUTS
            operations = [(tables.FORWARD, 0, first), (tables.JOIN, 0, tables.BY_ROWS)]
            if kind == "gradient":
                operations.insert(0, (tables.COMPRESS, 0, first))
        elif consecutive:
            if first == tables.BY_INPUTS:  # with no update, no half of W stays with a core
                first = tables.BY_ROWS
            operations = [(tables.GATHER, 0, tables.BY_ROWS), (tables.FORWARD, 0, first)]
        elif first == tables.BY_INPUTS:
            operations = [(tables.GATHER, 0, first), (tables.FORWARD, 0, first)]
            operations.append((tables.JOIN, 0, tables.BY_ROWS))
        else:
            operations = [(tables.GATHER, 0, tables.BY_ROWS), (tables.FORWARD, 0, first)]
        operations += [(tables.FORWARD, l, self._divisions(l)[0]) for l in range(1, L)]
        if consecutive:
            last = tables.MEASURE if kind == "measure" else tables.STORE
            operations.append((last, L - 1, tables.BY_ROWS))
        else:
            if kind == "gradient":
                operations = [(tables.FETCH, l, tables.BY_INPUTS) for l in range(L)] + operations
            if decay:
                operations += [(tables.SQUARES, l, tables.BY_ROWS) for l in range(L)]
            operations.append((tables.LOSS, L - 1, tables.BY_ROWS))
            operations += [(tables.BACKWARD, l, self._divisions(l)[1]) for l in range(L - 1, 0, -1)]
            operations.append((tables.UPDATE, 0, first))
            operations += [(tables.UPDATE, l, self._divisions(l)[0]) for l in range(1, L)]
            if kind == "gradient":
                updates = operations[-L:]
                operations += [(tables.DELIVER, l, division) for _, l, division in updates]
        table = []
        for i, (operation, l, division) in enumerate(operations):
            previous, _, divided = operations[i - 1]
            together = (
                previous >= tables.UPDATE  # nobody else reads what is updated
                or (operation != tables.UPDATE and division == divided != tables.BY_PANELS)
            )
            if i == 0:  # what comes before is the end of the batch before
                together = kind == "train" and division == first == tables.BY_INPUTS
            table.append((operation, l, division, 0 if together else 1))
        return np.array(table, np.int64)

    def net(self, kind: str, sparse: bool = False, decay: bool = False) -> tables.Net:
        """Return the network with the program of one kind."""
        return self._net._replace(program=self.program(kind, sparse, decay))

    # --- parameters ------------------------------------------------------------------------------

    def _views(self, slot: int | None = None) -> list[tuple[str, Array, slice]]:
        """Return key, a view of where it lies, and the columns that are there, panel by panel.

        Of the parameters, or of a slot of the optimizer's.  Found once: that takes longer than to
        copy what is there, a fifth of `network.gradient` for a hundred digits.
        """
        if slot not in self._found:
            buffer, offset = self.buffer, 0
            if slot is not None:
                buffer, offset = self.state, slot * self.parameters
            self._found[slot] = list(self._find(buffer, offset))
        return self._found[slot]

    def _find(self, buffer: Array, offset: int) -> Iterator[tuple[str, Array, slice]]:
        for l, (K, N) in enumerate(itertools.pairwise(self.sizes)):
            for p in self._forward[l]:
                width = min(columns_of(p.code, self.dtype.itemsize), N - p.column)
                start = offset + p.start
                rows = buffer[start : start + K * p.row].reshape(K, p.row)
                yield f"W{l + 1}", rows[:, :width], slice(p.column, p.column + width)
                if p.thin:
                    start = offset + p.thin
                    rows = buffer[start : start + K * THIN].reshape(K, THIN)
                    yield f"W{l + 1}", rows[:, : N - p.column - width], slice(p.column + width, N)
            bias = offset + self.layers[l, tables.BIAS]
            yield f"b{l + 1}", buffer[bias : bias + N], slice(0, N)

    def pack(self, params: Mapping[str, Array]) -> None:
        """Copy parameters in; the padding is what it was at first, whatever came of it since."""
        self.buffer[: self.parameters] = 0
        self._pad_logits()
        for key, view, columns in self._views():
            view[...] = params[key][..., columns]
        for l in range(1, len(self.sizes) - 1):
            W = params[f"W{l + 1}"]
            K, N = W.shape
            for p in self._back[l]:
                width = min(columns_of(p.code, self.dtype.itemsize), K - p.column)
                rows = self.buffer[p.start : p.start + N * p.row].reshape(N, p.row)
                rows[:, :width] = W[p.column : p.column + width].T

    def unpack(self, params: Mapping[str, Array]) -> None:
        """Copy parameters out, in place."""
        for key, view, columns in self._views():
            params[key][..., columns] = view

    def empty_params(self) -> dict[str, Array]:
        """Return new arrays, their elements not set, with the keys and shapes of parameters."""
        shapes: dict[str, tuple[int, ...]] = {}
        for l, (K, N) in enumerate(itertools.pairwise(self.sizes), start=1):
            shapes[f"W{l}"], shapes[f"b{l}"] = (K, N), (N,)
        return {key: np.empty(shape, self.dtype) for key, shape in shapes.items()}

    def pack_slot(self, slot: int, arrays: Mapping[str, Array]) -> None:
        """Copy one slot of the optimizer's state in."""
        self.state[slot * self.parameters : (slot + 1) * self.parameters] = 0
        for key, view, columns in self._views(slot):
            view[...] = arrays[key][..., columns]

    def unpack_slot(self, slot: int, arrays: Mapping[str, Array]) -> None:
        """Copy one slot of the optimizer's state out, in place."""
        for key, view, columns in self._views(slot):
            arrays[key][..., columns] = view
