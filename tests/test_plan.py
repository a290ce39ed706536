"""How a network lies in memory: panels, padding, programs, and parameters packed in and out."""

import itertools

import numpy as np
import pytest

from fastbp._memory import CACHE_LINE, round_up
from fastbp.kernels import tables
from fastbp.kernels.gemm import CODES, THIN, TILE_ROWS, columns_of
from fastbp.kernels.simd import lanes
from fastbp.plan import THIN_INPUTS, THIN_LANES, Plan, panels_of

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
by_itemsize = pytest.mark.parametrize("itemsize", [4, 8])
WIDTHS = sorted({*range(1, 70), *(2**k + d for k in range(8, 12) for d in (-1, 0, 1)), 784})
SIZES = [
    (1, 1),
    (1, 1, 2),
    (64, 10),
    (64, 50, 10),
    (784, 50, 10),
    (784, 512, 256, 10),
    (300, 700),
    (20, 30, 25, 40, 13, 5),
    *((17, width, 3) for width in (15, 16, 17, 47, 48, 49, 63, 64, 65, 127, 128, 129)),
]
every_net = pytest.mark.parametrize("sizes", SIZES, ids=str)


def random_params(sizes, dtype=np.float64, seed=0):
    """Return parameters of the shapes of a network, all different."""
    rng = np.random.default_rng(seed)
    params = {}
    for i, (K, N) in enumerate(itertools.pairwise(sizes), start=1):
        params[f"W{i}"] = rng.normal(size=(K, N)).astype(dtype)
        params[f"b{i}"] = rng.normal(size=N).astype(dtype)
    return params


def nan_like(params):
    return {key: np.full_like(p, np.nan) for key, p in params.items()}


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for key, p in expected.items():
        np.testing.assert_array_equal(actual[key], p, err_msg=key)


# --- panels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", WIDTHS)
@by_itemsize
def test_panels_cover_all_columns_once_in_order(itemsize, columns):
    panels = panels_of(columns, itemsize)
    ends = [begin + columns_of(code, itemsize) for begin, code, _ in panels]
    assert panels[0][0] == 0
    assert [begin for begin, _, _ in panels[1:]] == ends[:-1]
    assert ends[-1] >= columns
    assert ends[-1] - columns < lanes(itemsize)


@pytest.mark.parametrize("columns", WIDTHS)
@by_itemsize
def test_panels_are_whole_vectors_except_the_last(itemsize, columns):
    panels = panels_of(columns, itemsize)
    assert all(code in CODES for _, code, _ in panels)
    assert all(code % 2 == 0 for _, code, _ in panels[:-1])


@pytest.mark.parametrize("columns", WIDTHS)
@by_itemsize
def test_more_than_one_panel_are_an_even_number_about_equally_wide(itemsize, columns):
    panels = panels_of(columns, itemsize)
    one_is_enough = columns <= columns_of(CODES[-1], itemsize)
    assert (len(panels) == 1) == one_is_enough
    assert one_is_enough or len(panels) % 2 == 0
    vectors = [-(-columns_of(code, itemsize) // lanes(itemsize)) for _, code, _ in panels]
    assert max(vectors) - min(vectors) <= 1


@pytest.mark.parametrize("columns", WIDTHS)
@by_itemsize
def test_a_row_of_a_panel_has_room_for_what_the_tile_reads(itemsize, columns):
    for _, code, row in panels_of(columns, itemsize):
        assert row >= columns_of(code, itemsize)
        assert row % lanes(itemsize) == 0


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("inputs", [20, 64, 300])
@by_dtype
def test_one_or_two_columns_behind_whole_vectors_are_left_out_of_long_products(
    dtype, inputs, columns
):
    plan = Plan((inputs, columns, columns), "relu", dtype, 10)
    V = lanes(plan.dtype.itemsize)
    panels = plan.net("train").panels
    hidden, logits = (panels[row[tables.FIRST] : row[tables.LAST]] for row in plan.layers)
    assert not hidden[:-1, tables.THIN_START].any()
    assert not logits[:, tables.THIN_START].any()
    last = hidden[-1]
    end = last[tables.COLUMN] + columns_of(last[tables.CODE], plan.dtype.itemsize)
    if V >= 8 and columns > V and columns % V in (1, 2) and inputs >= 64:
        assert end == columns // V * V
        assert last[tables.ROW] == end - last[tables.COLUMN]  # and no room between the rows
        behind = last[tables.START] + plan.layers[0, tables.INPUTS] * last[tables.ROW]
        assert behind <= last[tables.THIN_START] < plan.parameters
    else:
        assert last[tables.THIN_START] == 0
        assert end >= columns


@by_dtype
def test_room_to_turn_thin_columns_is_there_only_for_such(dtype):
    def room(*sizes):
        plan = Plan(sizes, "relu", dtype, 10)
        widths = plan.net("train").sizes
        return widths[tables.SCRATCH_SIZE] - widths[tables.TURNED]

    V = lanes(np.dtype(dtype).itemsize)
    assert room(3000, 4 * V, 10) == room(20, 50, 10) == room(3000, 50) == 0
    if V >= THIN_LANES:
        assert room(3000, 2 * V + 1, 10) >= THIN * 3000
        assert room(3000, 2 * V, 2 * V, 10) == 0


def test_what_is_read_behind_an_example_is_less_than_the_last_example():
    """Of others there is one behind; the last is copied, see `gather`."""
    for itemsize in (4, 8):
        assert TILE_ROWS + lanes(itemsize) - 2 <= THIN_INPUTS


@every_net
@by_dtype
def test_the_addresses_of_rows_are_those_of_inputs_and_gradients(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 10)
    rows, begin = plan.net("train").rows, plan.buffer.ctypes.data
    taken = []
    for layer in plan.layers:
        for start, row, table in (
            (tables.X, tables.X_ROW, tables.X_ROWS),
            (tables.DZ, tables.H_ROW, tables.DZ_ROWS),
        ):
            places = range(layer[table], layer[table] + plan.rows)
            taken += places
            for n, place in enumerate(places):
                at = layer[start] + n * layer[row]
                assert rows[place] == begin + at * plan.dtype.itemsize
    second = plan.layers[0, tables.X_ROWS] + plan.rows
    taken += range(second, second + plan.rows)  # the first inputs' for the second half of them
    assert sorted(taken) == list(range(len(rows)))


# --- memory --------------------------------------------------------------------------------------


@every_net
@by_dtype
def test_rows_begin_on_cache_lines_where_rows_of_the_batch_do(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 100)
    line = CACHE_LINE // plan.dtype.itemsize
    for column in (tables.X, tables.X_ROW, tables.H, tables.DZ, tables.H_ROW, tables.BIAS):
        assert (plan.layers[:, column] % line == 0).all()
    for lines in (plan.layers[:, tables.X_ROW] // line, plan.layers[:, tables.H_ROW] // line):
        # Not a large power of two: the cache would have one place.
        assert ((lines % 2 == 1) | (lines <= 4)).all()
    assert (plan.net("train").panels[:, tables.START] % line == 0).all()


@every_net
@by_dtype
def test_logits_are_padded_with_minus_infinity_to_the_end_of_their_rows(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 100)
    last = plan.layers[-1]
    rows = plan.buffer[last[tables.H] :][: plan.rows * last[tables.H_ROW]]
    padding = rows.reshape(plan.rows, -1)[:, last[tables.WIDTH] :]
    assert (padding == -np.inf).all()


@every_net
@by_dtype
def test_rows_of_activations_have_room_for_what_the_tiles_write(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 100)
    assert plan.rows >= 100
    assert plan.rows % TILE_ROWS == 0
    panels = plan.net("train").panels
    for layer, N in zip(plan.layers, sizes[1:], strict=True):
        own = panels[layer[tables.FIRST] : layer[tables.LAST]]
        ends = [p[tables.COLUMN] + columns_of(p[tables.CODE], plan.dtype.itemsize) for p in own]
        ends[-1] += THIN if own[-1, tables.THIN_START] else 0
        assert N <= max(ends) == layer[tables.WIDTH] <= layer[tables.H_ROW]


@every_net
@by_dtype
def test_nothing_lies_on_top_of_anything_else(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 100, slots=2)
    pieces = []
    panels = plan.net("train").panels
    for i, layer in enumerate(plan.layers):
        K, N = layer[tables.INPUTS], layer[tables.OUTPUTS]
        rows = round_up(K, TILE_ROWS)  # whole tiles are written
        for p in panels[layer[tables.FIRST] : layer[tables.LAST]]:
            pieces.append((p[tables.START], p[tables.START] + rows * p[tables.ROW]))
            if p[tables.THIN_START]:
                pieces.append((p[tables.THIN_START], p[tables.THIN_START] + rows * THIN))
        for p in panels[layer[tables.BACK_FIRST] : layer[tables.BACK_LAST]]:
            pieces.append((p[tables.START], p[tables.START] + N * p[tables.ROW]))
        pieces.append((layer[tables.BIAS], layer[tables.BIAS] + layer[tables.WIDTH]))
        for column in (tables.H, tables.DZ) + ((tables.X,) if i == 0 else ()):
            row = layer[tables.X_ROW if column == tables.X else tables.H_ROW]
            pieces.append((layer[column], layer[column] + plan.rows * row))
    pieces.sort()
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(pieces))
    assert pieces[0][0] >= 0
    assert pieces[-1][1] <= plan.buffer.size
    assert plan.state.size == 2 * plan.parameters


@pytest.mark.parametrize(
    "sizes", [(20, 30, 10), (784, 512, 256, 10), (784, 50, 10), (80, 178, 33, 5)], ids=str
)
@by_dtype
def test_every_thread_has_scratch_memory_inside_the_buffer(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 100, slots=1)
    net = plan.net("train")
    begin, size = net.sizes[tables.SCRATCH], net.sizes[tables.SCRATCH_SIZE]
    thin = np.where(net.panels[:, tables.THIN_START] > 0, THIN, 0)
    widest = (net.panels[:, tables.ROW] + thin).max()
    turned = net.sizes[tables.TURNED]
    assert turned >= max(tables.GROUP, np.diff(plan.segment_edges()).max()) * widest
    for layer in plan.layers:
        if thin[layer[tables.FIRST] : layer[tables.LAST]].any():
            assert size - turned >= THIN * layer[tables.INPUTS]
    assert begin + tables.MAX_THREADS * size <= plan.buffer.size
    zeros = net.sizes[tables.ZEROS]
    assert not plan.buffer[zeros : zeros + widest].any()
    places = tables.COLUMN_ROWS * (1 + net.sizes[tables.MASKS])
    assert tables.HALVES * places <= net.columns.size
    assert 64 * net.sizes[tables.MASKS] >= np.diff(plan.segment_edges()).max()


@every_net
@by_dtype
def test_the_exponential_of_what_pads_the_logits_is_zero(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 100)
    plan.pack(random_params(sizes, dtype))
    last = plan.layers[-1]
    padding = plan.buffer[last[tables.BIAS] + sizes[-1] : last[tables.BIAS] + last[tables.WIDTH]]
    assert (padding == -np.inf).all()


# --- parameters in and out -----------------------------------------------------------------------

FORMS = {
    "contiguous": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "gaps": lambda p: np.repeat(p, 2, axis=-1)[..., ::2],
    "reversed": lambda p: p[::-1].copy()[::-1],
}


@pytest.mark.parametrize("form", FORMS)
@every_net
@by_dtype
def test_parameters_come_back_bit_for_bit(sizes, dtype, form):
    plan = Plan(sizes, "relu", dtype, 10)
    params = {key: FORMS[form](p) for key, p in random_params(sizes, dtype).items()}
    before = {key: p.copy() for key, p in params.items()}
    plan.pack(params)
    assert_same(params, before)
    out = {key: FORMS[form](p) for key, p in nan_like(before).items()}
    arrays = dict(out)
    plan.unpack(out)
    assert all(out[key] is a for key, a in arrays.items())  # into the arrays that are there
    assert_same(out, before)


@every_net
@by_dtype
def test_the_state_comes_back_bit_for_bit(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 10, slots=2)
    slots = [random_params(sizes, dtype, seed) for seed in range(2)]
    params = random_params(sizes, dtype, 2)
    plan.pack(params)
    for i, arrays in enumerate(slots):
        plan.pack_slot(i, arrays)
    for i, arrays in enumerate(slots):
        out = nan_like(arrays)
        plan.unpack_slot(i, out)
        assert_same(out, arrays)
    out = nan_like(params)
    plan.unpack(out)
    assert_same(out, params)


@every_net
def test_parameters_may_be_packed_again(sizes):
    plan = Plan(sizes, "relu", np.float64, 10)
    for seed in range(2):
        params = random_params(sizes, seed=seed)
        plan.pack(params)
        out = nan_like(params)
        plan.unpack(out)
        assert_same(out, params)


@every_net
def test_packing_brings_the_transposed_weights_too(sizes):
    plan = Plan(sizes, "relu", np.float64, 10)
    params = random_params(sizes)
    plan.pack(params)
    panels = plan.net("train").panels
    for i, layer in enumerate(plan.layers[1:], start=2):
        K, N = params[f"W{i}"].shape
        transposed = np.full((N, K), np.nan)
        for column, code, start, row, _ in panels[
            layer[tables.BACK_FIRST] : layer[tables.BACK_LAST]
        ]:
            width = min(columns_of(code, 8), K - column)
            rows = plan.buffer[start : start + N * row].reshape(N, row)
            transposed[:, column : column + width] = rows[:, :width]
        np.testing.assert_array_equal(transposed, params[f"W{i}"].T)


@every_net
@by_dtype
def test_empty_parameters_have_the_shapes_of_parameters(sizes, dtype):
    empty = Plan(sizes, "relu", dtype, 10).empty_params()
    expected = random_params(sizes, dtype)
    assert list(empty) == list(expected)
    for key, p in expected.items():
        assert (empty[key].shape, empty[key].dtype) == (p.shape, dtype)


# --- programs ------------------------------------------------------------------------------------

KINDS = ("predict", "measure", "gradient", "train")


def operations(plan, kind, **of):
    return [(operation, i) for operation, i in plan.program(kind, **of)[:, :2].tolist()]


@pytest.mark.parametrize("kind", KINDS)
@every_net
def test_every_program_goes_forward_through_the_layers_in_order(sizes, kind):
    L = len(sizes) - 1
    done = operations(Plan(sizes, "relu", np.float32, 100, slots=1), kind)
    if kind == "gradient":
        assert done[:L] == [(tables.FETCH, i) for i in range(L)]
        done = done[L:]
    assert done[0] == (tables.GATHER, 0)
    assert [i for operation, i in done if operation == tables.FORWARD] == list(range(L))


@pytest.mark.parametrize("kind", KINDS)
@every_net
def test_sparse_inputs_are_multiplied_where_they_lie_and_halves_are_joined(sizes, kind):
    program = Plan(sizes, "relu", np.float32, 100, slots=1).program(kind, sparse=True)
    done = [tuple(row) for row in program[:, :3].tolist() if row[0] != tables.FETCH]
    if kind == "gradient":
        assert done.pop(0) == (tables.COMPRESS, 0, tables.BY_INPUTS)
    consecutive = kind in ("predict", "measure")  # then each thread has rows of its own
    division = tables.BY_ROWS if consecutive else tables.BY_INPUTS
    assert done[0] == (tables.FORWARD, 0, division)
    assert done[1] == (tables.JOIN, 0, tables.BY_ROWS)


@every_net
@by_dtype
def test_the_columns_of_sparse_inputs_are_cut_in_the_halves_of_the_inputs(sizes, dtype):
    plan = Plan(sizes, "relu", dtype, 10)
    edges = plan.segment_edges()
    assert len(edges) % 2 == 1
    assert (edges[0], edges[-1]) == (0, sizes[0])
    assert edges[len(edges) // 2] == plan.layers[0, tables.HALF]
    assert (np.diff(edges) >= 0).all()


@pytest.mark.parametrize("kind", ["gradient", "train"])
@every_net
def test_training_goes_back_and_then_updates_every_layer(sizes, kind):
    L = len(sizes) - 1
    done = operations(Plan(sizes, "relu", np.float32, 100, slots=1), kind)
    tail = done[done.index((tables.LOSS, L - 1)) + 1 :]
    back = [(tables.BACKWARD, i) for i in range(L - 1, 0, -1)]
    ends = [tables.UPDATE, tables.DELIVER] if kind == "gradient" else [tables.UPDATE]
    assert tail == back + [(operation, i) for operation in ends for i in range(L)]


@every_net
@by_dtype
def test_who_updates_rows_of_the_weights_delivers_them(sizes, dtype):
    program = Plan(sizes, "relu", dtype, 100, slots=1).program("gradient")
    divisions = [
        program[program[:, tables.OPERATION] == operation, tables.DIVISION].tolist()
        for operation in (tables.UPDATE, tables.DELIVER)
    ]
    assert divisions[0] == divisions[1]


@pytest.mark.parametrize(
    ("kind", "last"), [("predict", tables.STORE), ("measure", tables.MEASURE)], ids=KINDS[:2]
)
@every_net
def test_evaluation_ends_with_the_logits(sizes, kind, last):
    L = len(sizes) - 1
    done = operations(Plan(sizes, "relu", np.float32, 100, slots=1), kind)
    assert done[-1] == (last, L - 1)
    assert {operation for operation, _ in done}.isdisjoint(
        {tables.BACKWARD, tables.UPDATE, tables.LOSS}
    )


@pytest.mark.parametrize("decay", [False, True])
@every_net
def test_squares_are_summed_only_with_a_weight_decay(sizes, decay):
    done = operations(Plan(sizes, "relu", np.float32, 100), "train", decay=decay)
    squares = [i for operation, i in done if operation == tables.SQUARES]
    assert squares == (list(range(len(sizes) - 1)) if decay else [])


@pytest.mark.parametrize("kind", KINDS)
@every_net
@by_dtype
def test_threads_meet_where_the_work_is_divided_anew(sizes, dtype, kind):
    program = Plan(sizes, "relu", dtype, 100, slots=1).program(kind, decay=True)
    # Who has updated a half of W may go on with it, in the next batch.
    kept = kind == "train" and program[0, tables.DIVISION] == tables.BY_INPUTS
    assert program[0, tables.BEGINS_REGION] == (0 if kept else 1)
    for before, now in itertools.pairwise(program):
        together = now[tables.BEGINS_REGION] == 0
        ends = tables.UPDATE, tables.DELIVER  # nobody else needs what they write
        updates = [row[tables.OPERATION] in ends for row in (before, now)]
        if together and not all(updates):
            assert not any(updates)
            assert now[tables.DIVISION] == before[tables.DIVISION] != tables.BY_PANELS
