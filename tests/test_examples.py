"""Inputs that are mostly zeros, dense or as SciPy's matrices: the same training."""

import numpy as np
import pytest
import scipy.sparse

import fastbp
from fastbp import examples, steps
from fastbp.engine import Engine
from fastbp.examples import SparseRows, as_sparse_data, is_worth_compressing
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.plan import Plan

by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
FORMATS = [
    scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_matrix,
    scipy.sparse.coo_array, scipy.sparse.lil_matrix, scipy.sparse.bsr_array,
]  # fmt: skip
NETS = [
    (20, [], 3), (97, [33], 7), (97, [130, 20], 7), (111, [20], 3), (300, [50], 10),
    (784, [50], 10), (3000, [70], 5),  # several ranges of columns in each half
]  # fmt: skip
# Of a tenth of numbers a batch of 32 is updated by rows, of three tenths by columns.
by_density = pytest.mark.parametrize("density", [0.1, 0.3])


def data(D, C, dtype="float64", density=0.1):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((150, D)) * (rng.random((150, D)) < density)).astype(dtype)
    return x, rng.integers(0, C, 150)


def trained(x, t, net=(97, [33], 7), dtype="float64", optimizer=None, decay=0.0, **options):
    # With seed 1 a sum of float32 is so near 0 that its last bit decides what ReLU does.
    network = fastbp.MultiLayerNet(*net, dtype=dtype, seed=2, weight_decay_lambda=decay)
    options = {"batch_size": 32, "epochs": 3, "seed": 0, "progress": False, **options}
    history = fastbp.fit(network, x, t, optimizer=optimizer, **options)
    return network, history


def dense(monkeypatch, *arguments, **options):
    with monkeypatch.context() as patch:
        patch.setattr(steps, "is_worth_compressing", lambda x: False)
        return trained(*arguments, **options)


def agree(one, other, relative):
    for p, q in zip(one[0].params.values(), other[0].params.values(), strict=True):
        np.testing.assert_allclose(p, q, relative, relative * np.abs(q).max())
    for name in "train_loss_list", "test_loss_list":
        values = getattr(one[1], name), getattr(other[1], name)
        np.testing.assert_allclose(*values, relative)


@by_dtype
@by_density
@pytest.mark.parametrize("net", NETS, ids=str)
def test_zeros_skipped_give_the_training_that_has_them(net, density, dtype, monkeypatch):
    x, t = data(net[0], net[2], dtype, density)
    options = {"net": net, "dtype": dtype, "validation_data": (x[:40], t[:40])}
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    agree(trained(x, t, **options), dense(monkeypatch, x, t, **options), tolerance)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("batch_size", [1, 63, 64, 65, 100, 128, 129, 150])
def test_zeros_are_skipped_in_batches_of_any_size(batch_size, density, monkeypatch):
    x, t = data(97, 7, density=density)
    options = {"batch_size": batch_size, "epochs": 2}
    agree(trained(x, t, **options), dense(monkeypatch, x, t, **options), 1e-10)


@pytest.mark.parametrize("optimizer", sorted(fastbp.optimizer.OPTIMIZERS))
@pytest.mark.parametrize("decay", [0.0, 0.01])
@by_density
def test_every_optimizer_may_skip_zeros(optimizer, decay, density, monkeypatch):
    x, t = data(97, 7, density=density)
    make = fastbp.optimizer.OPTIMIZERS[optimizer]
    both = [
        run(x, t, optimizer=make(lr=0.01), decay=decay)
        for run in (trained, lambda *a, **o: dense(monkeypatch, *a, **o))
    ]
    agree(*both, 1e-9)


@by_density
@by_dtype
def test_updates_by_rows_and_by_columns_have_the_same_bits(dtype, density, monkeypatch):
    x, t = data(300, 7, dtype, density)
    options = {"net": (300, [50], 7), "dtype": dtype, "batch_size": 140}
    by_columns = trained(x, t, **options)
    monkeypatch.setattr(examples, "_room_for_masks", lambda *a: np.empty(0, np.int64))
    by_rows = trained(x, t, **options)
    for key, p in by_columns[0].params.items():
        np.testing.assert_array_equal(by_rows[0].params[key], p)


def pixels(D, C, dtype="float64", density=0.1, N=150):
    """Return what :func:`data` does, with values of bytes over 255."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 256, (N, D)) * (rng.random((N, D)) < density)
    return (x / 255).astype(dtype), rng.integers(0, C, N)


def codes_of(x, dtype="float64"):
    plan = Plan((x.shape[1], 50, 7), "relu", dtype, 128)
    x = SparseRows("fit", "x", x) if scipy.sparse.issparse(x) else x
    return as_sparse_data("fit", x, np.zeros(x.shape[0], np.int64), plan)


@by_density
@by_dtype
@pytest.mark.parametrize("batch_size", [10, 32, 140])
@pytest.mark.parametrize("net", NETS, ids=str)
def test_codes_have_the_bits_of_the_values(net, batch_size, dtype, density, monkeypatch):
    x, t = pixels(net[0], net[2], dtype, density)
    options = {"net": net, "dtype": dtype, "batch_size": batch_size, "epochs": 2}
    options |= {"validation_data": (x[:40], t[:40])}
    kinds = []
    kept = examples.as_sparse_data

    def noting(*arguments):
        kinds.append(kept(*arguments))
        return kinds[-1]

    monkeypatch.setattr(steps, "as_sparse_data", noting)
    coded = trained(x, t, **options)
    of_a_matrix = trained(scipy.sparse.csr_matrix(x), t, **options)
    monkeypatch.setattr(examples, "_scale_of", lambda values: np.nan)
    plain = trained(x, t, **options)
    for other in of_a_matrix, plain:
        for key, p in coded[0].params.items():
            np.testing.assert_array_equal(other[0].params[key], p)
        assert other[1].train_loss_list == coded[1].train_loss_list
        assert other[1].test_loss_list == coded[1].test_loss_list
    assert [d.codes.size > 0 for d in kinds] == [True] * 4 + [False] * 2
    assert not any(d.values.size or d.columns.size for d in kinds[:4])


@pytest.mark.parametrize("makers", [(data, pixels), (pixels, data)])
def test_one_training_may_have_inputs_with_codes_and_without(makers, monkeypatch):
    (x, t), (other, labels) = (make(97, 7) for make in makers)
    assert (codes_of(x).codes.size > 0) != (codes_of(other).codes.size > 0)
    options = {"validation_data": (other, labels)}
    agree(trained(x, t, **options), dense(monkeypatch, x, t, **options), 1e-8)


@by_dtype
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix], ids=["array", "matrix"])
def test_values_that_have_codes_come_back_to_the_bit(form, dtype):
    rng = np.random.default_rng(0)
    some = rng.random((5000, 40)) < 0.3
    bytes_ = rng.integers(1, 256, some.shape) * some
    kinds = {
        "bytes": bytes_.astype(np.uint8), "pixels": bytes_ / 255,
        "pixels, float32": bytes_.astype(np.float32) / np.float32(255), "over 256": bytes_ / 256,
        "ones": some, "tenths": rng.integers(1, 11, some.shape) * some / 10,
        "counts": np.minimum(bytes_, 17), "reciprocal": bytes_ * (1 / 255),
        "large": bytes_ * 1e30,
    }  # fmt: skip
    for name, x in kinds.items():
        data = codes_of(form(x), dtype)
        assert data.codes.size == np.count_nonzero(x), name
        assert data.table.dtype == dtype
        np.testing.assert_array_equal(data.table[data.codes], x.astype(dtype)[x != 0], name)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix], ids=["array", "matrix"])
def test_other_values_stay_as_they_are(form):
    rng = np.random.default_rng(0)
    some = rng.random((5000, 40)) < 0.3
    whole = rng.integers(1, 256, some.shape) * some
    late = whole.astype(float)
    row, column = np.argwhere(some)[-1]
    late[row, column] = 256  # not seen before all others have got a code
    kinds = {
        "late": late, "tiny": np.where(whole == 7, 1e-30, whole), "negative": -whole,
        "continuous": rng.random(some.shape) * some,
        "257 values": rng.integers(1, 258, some.shape) * some,
        "neighbours": whole * np.where(rng.random(some.shape) < 0.5, 1, 1 + 1e-9),
    }  # fmt: skip
    for name, x in kinds.items():
        data = codes_of(form(x))
        np.testing.assert_array_equal(data.values, x[x != 0], name)
        np.testing.assert_array_equal(data.columns, np.nonzero(x)[1], name)
        assert not data.codes.size, name
        assert not data.table.size, name


def test_inputs_that_change_while_they_are_compressed_leave_no_code_without_a_column(monkeypatch):
    x, _ = pixels(97, 7, density=0.3)
    kept = examples.compress

    def late(columns, values, masks, x, starts, edges):
        changed = x.copy()
        changed[3, 50:] = 0
        kept(columns, values, masks, changed, starts, edges)

    monkeypatch.setattr(examples, "compress", late)
    data = codes_of(x)
    assert not data.codes.size  # masks with fewer bits than there are numbers are not for codes
    assert data.values.size == np.count_nonzero(x)


def test_masks_are_kept_where_a_batch_may_be_updated_by_columns():
    for density, some in ((0.02, False), (0.1, True)):
        x, t = data(300, 7, density=density)
        plan = Plan((300, 50, 7), "relu", "float64", 128)
        for inputs in x, SparseRows("fit", "x", scipy.sparse.csr_matrix(x)):
            masks = as_sparse_data("fit", inputs, t, plan).masks
            assert masks.size == some * 2 * len(x) * plan.masks_a_segment()
            assert sum((int(m) % 2**64).bit_count() for m in masks) == some * np.count_nonzero(x)


@by_density
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit(threads, density):
    x, t = data(784, 10, "float32", density)
    options = {"net": (784, [50], 10), "dtype": "float32", "batch_size": 100, "epochs": 20}
    one, more = trained(x, t, **options, threads=1), trained(x, t, **options, threads=threads)
    assert one[1].train_loss_list == more[1].train_loss_list
    for key, p in one[0].params.items():
        np.testing.assert_array_equal(more[0].params[key], p)


@pytest.mark.skipif(JIT_DISABLED, reason="without compiled code one thread does the work of all")
def test_each_thread_notes_columns_in_a_place_of_its_own():
    x, t = data(300, 7, density=0.3)
    engine = Engine((300, 50, 7), "relu", np.float64, 100, threads=2)
    engine.plan.pack(fastbp.MultiLayerNet(300, [50], 7, seed=0).params)
    rule, examples_of = fastbp.SGD(0.1)._rule(), as_sparse_data("fit", x, t, engine.plan)
    engine.run("train", examples_of, rule, np.arange(100), np.array([0, 100]))
    columns = engine.plan.net("train").columns.reshape(2, -1)
    assert columns.any(axis=1).all()


@by_density
@pytest.mark.parametrize("make", FORMATS, ids=lambda f: f.__name__)
def test_scipy_matrices_of_any_format_train_like_arrays(make, density):
    x, t = data(97, 7, density=density)
    matrix = make(x)
    before = matrix.copy()
    one = trained(x, t, validation_data=(x[:9], t[:9]))
    other = trained(matrix, t, validation_data=(matrix.tocsr()[:9], t[:9]))
    for key, p in one[0].params.items():
        np.testing.assert_array_equal(other[0].params[key], p)
    assert one[1].test_loss_list == other[1].test_loss_list
    assert (matrix != before).nnz == 0


def test_a_sparse_matrix_of_integers_with_duplicates_and_unsorted_columns():
    rows, columns, values = [0, 0, 0, 1, 2], [3, 1, 3, 0, 2], [1, 2, 1, 5, 0]
    matrix = scipy.sparse.coo_array((values, (rows, columns)), (3, 4))
    a = trained(matrix, [0, 1, 0], net=(4, [5], 2))
    b = trained(matrix.toarray(), [0, 1, 0], net=(4, [5], 2))
    agree(a, b, 1e-12)


def test_a_sparse_matrix_and_an_optimizer_of_ones_own():
    class Own(fastbp.SGD):
        pass

    x, t = data(97, 7)
    agree(
        trained(scipy.sparse.csr_matrix(x), t, optimizer=Own(0.1), evaluate_sample=20),
        trained(x, t, optimizer=fastbp.SGD(0.1), evaluate_sample=20),
        1e-10,
    )


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (scipy.sparse.csr_matrix(np.ones((3, 4), complex)), TypeError, "x has dtype complex128"),
        (scipy.sparse.csr_matrix((3, 5)), ValueError, r"shape \(3, 5\), expected \(N, 4\)"),
        (scipy.sparse.csr_matrix((0, 4)), ValueError, "no examples"),
        (scipy.sparse.csr_matrix((3, 70_000)), ValueError, "at most 65536"),
        (
            scipy.sparse.csr_matrix([[0, 1.0, 0, 0], [0, np.nan, 0, 0]]),
            ValueError,
            "row 1, column 1",
        ),
    ],
)
def test_sparse_matrices_that_are_refused(matrix, error, message):
    net = fastbp.MultiLayerNet(4, [5], 2, seed=0)
    before = {key: p.copy() for key, p in net.params.items()}
    with pytest.raises(error, match=message):
        fastbp.fit(net, matrix, np.zeros(matrix.shape[0], int), epochs=1)
    for key, p in net.params.items():
        np.testing.assert_array_equal(p, before[key])


@pytest.mark.parametrize("index", [-1, 4, 1 << 20])
def test_indices_outside_are_found_before_a_kernel_sees_them(index):
    matrix = scipy.sparse.csr_matrix(np.eye(4))
    matrix.indices[2] = index
    with pytest.raises(ValueError, match="damaged"):
        SparseRows("fit", "x", matrix)


def test_columns_put_out_of_order_behind_scipys_back_are_sorted():
    x = np.array([[0, 1.0, 2.0, 0], [3.0, 0, 0, 4.0]])
    matrix = scipy.sparse.csr_matrix(x)
    assert matrix.has_canonical_format  # remembered
    matrix.indices[:] = [2, 1, 3, 0]
    matrix.data[:] = [2.0, 1.0, 4.0, 3.0]
    rows = SparseRows("fit", "x", matrix)
    np.testing.assert_array_equal(rows.columns, [1, 2, 0, 3])
    np.testing.assert_array_equal(rows[:], x)
    np.testing.assert_array_equal(matrix.indices, [2, 1, 3, 0])


def test_a_matrix_with_room_behind_its_numbers():
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    matrix.data, matrix.indices = np.append(matrix.data, 9.0), np.append(matrix.indices, 77)
    np.testing.assert_array_equal(SparseRows("fit", "x", matrix)[:], np.eye(3))


def test_starts_that_point_outside_are_found():
    matrix = scipy.sparse.csr_matrix(np.eye(4))
    matrix.indptr[-1] = 9
    with pytest.raises(ValueError, match="damaged"):
        SparseRows("fit", "x", matrix)


def test_rows_of_a_sparse_matrix():
    x, _ = data(97, 7)
    rows = SparseRows("fit", "x", scipy.sparse.csr_matrix(x))
    np.testing.assert_array_equal(rows[:5], x[:5])
    np.testing.assert_array_equal(rows[np.array([3, 149, 3])], x[[3, 149, 3]])
    assert len(rows) == 150


def test_what_is_worth_compressing():
    x = np.zeros((1000, 20))
    assert is_worth_compressing(x)
    x[:, :6] = 1
    assert is_worth_compressing(x)
    x[:, 6:10] = 1
    assert not is_worth_compressing(x)
    assert not is_worth_compressing(np.zeros((2, examples.SPARSE_COLUMNS + 1)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", ["f2", "f4", "f8", ">f8", "i4", "?"])
@pytest.mark.parametrize("order", ["C", "F", "reversed", "read-only"])
def test_inputs_are_converted_in_pieces(dtype, given, order, monkeypatch, rng):
    monkeypatch.setattr(examples, "PIECE", 40)
    x = rng.uniform(0, 3, (23, 11)).astype(given)
    if order == "F":
        x = np.asfortranarray(x)
    elif order == "reversed":
        x = x[::-1, ::-1]
    elif order == "read-only":
        x.flags.writeable = False
    data = examples.as_data("fit", x, np.zeros(23, np.int64), np.dtype(dtype))
    np.testing.assert_array_equal(data.x, x.astype(dtype))
    assert data.x.flags.carray
    assert data.x.dtype == dtype
