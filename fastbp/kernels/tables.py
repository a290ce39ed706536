"""What the compiled loop is told: a network as tables, examples, and a rule for the update.

Programs, layers and panels are rows of integers; the names here are their columns and values.
:mod:`fastbp.plan` fills the tables, the other kernels read them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .gemm import TILE_ROWS
from .jit import part
from .simd import MASK_BITS

# Operations of a program; its columns; how an operation is divided among threads.
(
    FETCH, COMPRESS, GATHER, SQUARES, FORWARD, JOIN, LOSS, MEASURE, STORE, BACKWARD, UPDATE,
    DELIVER,
) = range(12)  # fmt: skip
OPERATION, LAYER, DIVISION, BEGINS_REGION = range(4)
BY_ROWS, BY_PANELS, BY_INPUTS = range(3)
HALVES = 2  # of the inputs: as many threads share what is divided by them
# Columns of the table of layers.  Offsets count elements of the buffer.
(
    INPUTS,  # K
    OUTPUTS,  # N
    WIDTH,  # N rounded up to what the tiles compute
    ACTIVATION,
    X,  # offset of the inputs: room for a gathered batch, or the layer before
    X_ROW,  # elements from a row to the next
    X_ROWS,  # where the addresses of the rows of the inputs are
    DZ_ROWS,  # where those of the gradients of what goes into the activation are
    H,  # offset of the outputs, after the activation
    DZ,  # offset of the gradient of what goes into the activation
    H_ROW,  # elements from a row to the next, of both
    BIAS,
    HALF,  # where the second half of the inputs begins, if they are divided
    FIRST, LAST,  # its panels of W: FIRST <= p < LAST
    BACK_FIRST, BACK_LAST,  # its panels of W.T
) = range(17)  # fmt: skip
LAYER_COLUMNS = 17
# Columns of the table of panels.
(
    COLUMN,  # the first column of the matrix
    CODE,  # how many a tile computes
    START,  # offset
    ROW,  # row stride
    THIN_START,  # offset of one or two columns more, a row of THIN numbers for each of W; or 0
) = range(5)
IDENTITY, RELU, SIGMOID = range(3)
# What becomes of a gradient: it is kept in the state, or a rule updates the parameters.
KEEP, SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM = range(7)
# Where inputs come from.
FLOATS, BYTES, SPARSE = range(3)
# Rows of W updated together, a multiple of TILE_ROWS: their gradient (96 rows of 64 float32 are
# 24 kB) stays in the first-level cache until the rule has used it.
GROUP = 96
# Rows of the batch summed at a time: 256 rows of a panel of dout are 64 kB, in the
# second-level cache; shorter blocks load and store W more often and took longer.
BLOCK = 256
# Rows of the batch whose non-zeros are looked for by columns: two masks of 64 bits.
COLUMN_ROWS = 2 * MASK_BITS
# Numbers, a page of them, between the masks of one thread and those of the next: when a thread
# reads its own to the end, the processor goes on and fetches what the other is writing.
APART = 512
# Numbers of a column in COLUMN_ROWS rows, or in a smaller batch, from which the update by columns
# is faster than by rows.
NUMBERS_A_COLUMN = 5
# Threads there is scratch memory for.
MAX_THREADS = 64
# Logits exponentiated in one run: 8 kB of float32, in the first-level cache.
SOFTMAX_BLOCK = 2048
LINE = 64  # bytes in a cache line
# How many examples in front of the one it copies `gather` prefetches.
EXAMPLES_AHEAD = 8


class Net(NamedTuple):
    """A network as the kernels see it.

    buffer : T[::1] - parameters, then activations and what else a step needs
    state : T[::1] - for each slot of the optimizer as many elements as there are parameters
    layers, panels, program : int64[:, ::1] - the tables
    rows : int64[::1] - addresses of rows: for each layer those of its inputs, of its gradients.
        Those of the first inputs are noted for each batch, and for each half of the inputs by the
        thread that needs them
    work : float64[:, ::1] - a column for each row of the batch: total, logit (before it is known,
        the highest of the row), right
    squares : float64[:, ::1] - a row for each panel: the sum of squares of each GROUP of rows of W
    columns : int64[::1] - for each half of the inputs places in some rows of the batch, and masks
        of columns
    finite : float64[:, ::1] - 0 for each half of the rows of the user's W, NaN if it is not finite
    sizes : int64[::1] - parameters, offset of zeros, of scratch, scratch a thread, offset of sums
        over each half of the inputs, masks of a segment of sparse inputs, and where in the
        scratch of a thread thin columns lie, turned to rows
    tile : int - the address of the compiled tile of the matrix product
    sparse, once : int - the addresses of the compiled work on inputs that are mostly zeros, and on
        those that are looked at once, or 0 where there are none
    rule, exchange : int - the addresses of the compiled step along a gradient in memory, and of the
        copies from and to users' arrays, or 0 where there is none
    """

    buffer: Any
    state: Any
    layers: Any
    panels: Any
    program: Any
    rows: Any
    work: Any
    squares: Any
    columns: Any
    finite: Any
    sizes: Any
    tile: int
    sparse: int
    once: int
    rule: int
    exchange: int


PARAMETERS, ZEROS, SCRATCH, SCRATCH_SIZE, SUMS, MASKS, TURNED = range(7)


class Data(NamedTuple):
    """Examples: inputs of one kind, targets of one kind; the others are empty.

    source : int - FLOATS, BYTES or SPARSE
    x : T[:, ::1] - of SPARSE: what a program is to compress itself, or empty
    bytes : uint8[:, ::1]
    columns, values : uint16[::1], T[::1] - the non-zeros, row by row, with gaps where a program
        compresses x
    codes, table : uint8[::1], T[::1] - instead of these, where few values occur: the place of each
        in the table, of which the first is 0; their columns are in the masks
    starts, stops : int64[::1] - where the segments of the rows begin and end
    masks : int64[::1] - of each segment as many numbers: a bit for each column, 1 if it is there;
        or empty where the columns of a batch have too few numbers
    edges : int64[::1] - the columns between which a row is cut into segments; half of the segments
        are in the first half of the inputs
    labels : int64[::1]
    targets : T[:, ::1] - probabilities
    out : T[:, ::1] - where logits are stored
    params, grads : int64[::1] - addresses of W1, b1, W2, ... and of their gradients, as users have
        them, C-contiguous: for a program that fetches and delivers them itself
    """

    source: int
    x: Any
    bytes: Any
    columns: Any
    values: Any
    codes: Any
    table: Any
    starts: Any
    stops: Any
    masks: Any
    edges: Any
    labels: Any
    targets: Any
    out: Any
    params: Any
    grads: Any


class Rule(NamedTuple):
    """What an update does.

    kind : int - KEEP, SGD, ...
    lr, first, second, eps : float - learning rate; momentum, decay rate or betas
    decay : float - lambda of the weight decay
    steps : int - updates before this call, for Adam
    stop : int - whether to stop at a loss that is not finite, before the update
    loss_eps : float - the book's addend inside the logarithm, or 0
    """

    kind: int
    lr: float
    first: float
    second: float
    eps: float
    decay: float
    steps: int
    stop: int
    loss_eps: float


# What kernels of a step begin with, in their signatures: these tuples, and the rows of all batches.
TUPLES = (Net, Data, Rule)
RULE = "Rule(int64, float64, float64, float64, float64, float64, int64, int64, float64)"
NET = """Net(
    T[::1], T[::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], float64[:, ::1],
    float64[:, ::1], int64[::1], float64[:, ::1], int64[::1], int64, int64, int64, int64, int64)"""
DATA = """Data(
    int64, T[:, ::1], uint8[:, ::1], uint16[::1], T[::1], uint8[::1], T[::1], int64[::1],
    int64[::1], int64[::1], int64[::1], int64[::1], T[:, ::1], T[:, ::1], int64[::1], int64[::1])"""
STEP = f"{NET}, {DATA}, {RULE}, int64[::1]"


@part
def share(n: int, quantum: int, thread: int, threads: int) -> tuple[int, int]:
    """Return a thread's range of n things that are dealt out ``quantum`` at a time."""
    groups = (n + quantum - 1) // quantum
    return groups * thread // threads * quantum, groups * (thread + 1) // threads * quantum


@part
def rows_of_inputs(layer: Any, half: int) -> int:
    """Return where the addresses of the rows of x are, for those who work on a half of it."""
    return layer[X_ROWS] + half * ((layer[DZ_ROWS] - layer[X_ROWS]) // HALVES)


@part
def half_of_inputs(layer: Any, half: int) -> tuple[int, int]:
    """Return the rows of W in a half of the inputs, padding included."""
    K = (layer[INPUTS] + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    return (0, layer[HALF]) if half == 0 else (layer[HALF], K)
