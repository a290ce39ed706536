import copy
import math
import pickle
import signal

import numpy as np
import pytest

import fastbp
from fastbp import (
    DivergedError,
    History,
    MultiLayerNet,
    Report,
    Trainer,
    TrainingInterrupted,
    TwoLayerNet,
    fit,
    reference,
)
from fastbp import optimizer as optimizers

D, C, N = 4, 3, 30
LEARNING_RATES = {
    "SGD": 0.5,
    "Momentum": 0.1,
    "Nesterov": 0.1,
    "AdaGrad": 0.1,
    "RMSprop": 0.01,
    "Adam": 0.01,
}


def examples(count=N):
    """Return rows whose first column is the number of the row, over 100."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, D))
    x[:, 0] = np.arange(count) / 100
    return x, rng.integers(0, C, count)


def small(cls=TwoLayerNet, **options):
    return cls(D, 6, C, 0.5, seed=0, **options)


def bits(net):
    return {key: p.tobytes() for key, p in net.params.items()}


def finite(net):
    return all(np.isfinite(p).all() for p in net.params.values())


class Spy(TwoLayerNet):
    """Remembers which rows it is trained on; ``at[n]`` is called in the n-th step, from 0.

    A network with a method of its own is trained layer by layer: compare its bits with those of
    another such network, not with those of the compiled loop.
    """

    def __init__(self, *arguments, at=None, **options):
        super().__init__(*arguments, **options)
        self.batches, self.at = [], at or {}

    def loss_and_gradient(self, x, t):
        self.batches.append(np.rint(100 * x[:, 0]).astype(int))
        loss, grads = super().loss_and_gradient(x, t)
        return self.at.get(len(self.batches) - 1, lambda loss: loss)(loss), grads


# --- the same numbers as a loop by hand ----------------------------------------------------------


def loop_by_hand(optimizer, x, t, steps, batch_size):
    """Return the losses of the book's training loop, and its network."""
    np.random.seed(0)
    net = reference.TwoLayerNet(64, 50, 10)
    losses = []
    for _ in range(steps):
        rows = np.random.choice(len(x), batch_size)
        losses.append(net.loss(x[rows], t[rows]))
        optimizer.update(net.params, net.gradient(x[rows], t[rows]))
    return losses, net


@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
@pytest.mark.parametrize("name", LEARNING_RATES)
def test_the_first_hundred_losses_are_those_of_the_books_loop(name, one_hot, digits):
    (x, t), _ = digits
    x, t = x.astype(np.float64), np.eye(10)[t] if one_hot else t
    lr = LEARNING_RATES[name]
    expected, book = loop_by_hand(getattr(reference, name)(lr=lr), x, t, 100, 100)
    np.random.seed(0)
    net = TwoLayerNet(64, 50, 10)
    history = fit(
        net,
        x,
        t,
        optimizer=getattr(optimizers, name)(lr=lr),
        batch_size=100,
        iterations=100,
        sampling="choice",
        progress=False,
    )
    np.testing.assert_allclose(history.train_loss_list, expected, rtol=1e-10)
    for key, p in book.params.items():
        np.testing.assert_allclose(net.params[key], p, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_are_learned(seed, digits):
    (x, t), test = digits
    net = MultiLayerNet(64, [100], 10, seed=seed)
    options = {"optimizer": fastbp.Adam(lr=0.01), "batch_size": 50, "epochs": 20, "seed": seed}
    history = fit(net, x, t, validation_data=test, **options)
    assert history.test_acc_list[-1] >= 0.95


def test_weight_decay_is_in_the_losses_and_in_the_steps():
    x, t = examples()
    decayed = MultiLayerNet(D, [6], C, weight_decay_lambda=0.5, seed=0)
    by_hand = copy.deepcopy(decayed)
    history = fit(decayed, x, t, batch_size=N, iterations=5)
    losses = []
    for _ in range(5):  # a batch of everything: its order changes the last digits only
        losses.append(by_hand.loss(x, t))
        fastbp.SGD(lr=0.1).update(by_hand.params, by_hand.gradient(x, t))
    np.testing.assert_allclose(history.train_loss_list, losses, rtol=1e-12)


def test_the_default_optimizer_is_sgd_with_a_rate_of_a_tenth():
    nets = small(), small()
    fit(nets[0], *examples(), iterations=5, seed=0)
    fit(nets[1], *examples(), iterations=5, seed=0, optimizer=fastbp.SGD(lr=0.1))
    assert bits(nets[0]) == bits(nets[1])


def test_the_default_batch_has_100_examples():
    spy = small(Spy)
    fit(spy, *examples(250), iterations=1)
    assert len(spy.batches[0]) == 100


def test_an_optimizer_goes_on_where_it_was():
    x, t = examples()
    results = []
    for parts in ([20], [15, 5]):
        np.random.seed(0)
        net, optimizer = small(), fastbp.Adam(lr=0.05)
        for steps in parts:
            fit(net, x, t, optimizer=optimizer, batch_size=10, iterations=steps, sampling="choice")
        results.append(bits(net))
    assert results[0] == results[1]


# --- the same seed -------------------------------------------------------------------------------


def train(digits, seed, sampling, dtype=np.float64):
    (x, t), _ = digits
    net = MultiLayerNet(64, [120], 10, dtype=dtype, seed=0)
    history = fit(net, x, t, batch_size=128, iterations=25, sampling=sampling, seed=seed)
    return history.train_loss_list, bits(net)


both_samplings = pytest.mark.parametrize("sampling", ["shuffle", "choice"])
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_samplings
@both_types
def test_the_same_seed_gives_the_same_bits(sampling, dtype, digits, threads):
    assert train(digits, 5, sampling, dtype) == train(digits, 5, sampling, dtype)


@both_samplings
def test_another_seed_gives_other_batches(sampling, digits):
    assert train(digits, 5, sampling)[0] != train(digits, 6, sampling)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": "shuffle"},
        {"sampling": "shuffle", "seed": 0},
        {"sampling": "choice", "seed": 0},
    ],
    ids=str,
)
def test_the_global_generator_is_for_choice_without_a_seed_alone(options):
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    fit(small(), *examples(), iterations=3, **options)
    assert np.random.random() == expected


# --- the batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 8, 10, 29, 30])
def test_shuffle_takes_every_example_once_an_epoch(batch_size):
    spy = small(Spy)
    fit(spy, *examples(), batch_size=batch_size, epochs=3, seed=0)
    per_epoch = math.ceil(N / batch_size)
    assert len(spy.batches) == 3 * per_epoch
    for epoch in range(3):
        batches = spy.batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(np.concatenate(batches)) == list(range(N))


def test_the_last_batch_of_an_epoch_may_be_smaller():
    spy = small(Spy)
    fit(spy, *examples(), batch_size=8, epochs=2, seed=0)
    assert [len(rows) for rows in spy.batches] == [8, 8, 8, 6] * 2


def test_shuffle_shuffles_anew_each_epoch():
    spy = small(Spy)
    fit(spy, *examples(), batch_size=N, epochs=3, seed=0)
    orders = {tuple(rows) for rows in spy.batches} | {tuple(range(N))}
    assert len(orders) == 4


def test_choice_draws_with_replacement():
    spy = small(Spy)
    fit(spy, *examples(), batch_size=N, iterations=3, sampling="choice", seed=0)
    assert all(len(rows) == N and len(set(rows)) < N for rows in spy.batches)
    assert len(set(map(tuple, spy.batches))) == 3


def test_choice_draws_every_example_sooner_or_later():
    spy = small(Spy)
    fit(spy, *examples(), batch_size=10, iterations=60, sampling="choice", seed=0)
    assert set(np.concatenate(spy.batches)) == set(range(N))


@both_samplings
def test_each_example_keeps_its_own_target(sampling):
    x, t = examples()

    class Compares(Spy):
        def loss_and_gradient(self, x, labels):
            rows = np.rint(100 * x[:, 0]).astype(int)
            np.testing.assert_array_equal(labels, t[rows])
            return super().loss_and_gradient(x, labels)

    spy = small(Compares)
    fit(spy, x, t, batch_size=7, iterations=12, sampling=sampling, seed=0)
    assert len(spy.batches) == 12


@both_samplings
def test_a_batch_size_beyond_the_data_means_all_of_it(sampling):
    spy = small(Spy)
    fit(spy, *examples(), batch_size=1000, epochs=2, sampling=sampling)
    assert [len(rows) for rows in spy.batches] == [N, N]


# --- how long ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"epochs": 1}, [0, 3]),
        ({"epochs": 3}, [0, 3, 6, 9]),
        ({"epochs": 2, "batch_size": 8}, [0, 4, 8]),
        ({"epochs": np.int64(2), "batch_size": np.uint8(30)}, [0, 1, 2]),
        ({"iterations": 1}, [0, 1]),
        ({"iterations": 3}, [0, 3]),
        ({"iterations": 7}, [0, 3, 6, 7]),
        ({"iterations": 7, "sampling": "choice"}, [0, 3, 6, 7]),
        ({}, [*range(0, 61, 3)]),
    ],
    ids=str,
)
def test_reports_come_at_the_start_after_each_epoch_and_at_the_end(options, steps):
    reports = []
    options = {"batch_size": 10, **options}
    history = fit(small(), *examples(), callbacks=[reports.append], **options)
    assert history.steps == steps
    assert [report.step for report in reports] == steps
    assert len(history) == len(history.train_loss_list) == steps[-1]


def test_epochs_and_iterations_together_are_refused():
    with pytest.raises(ValueError, match="epochs and iterations are both given"):
        fit(small(), *examples(), epochs=1, iterations=1)


# --- the history ---------------------------------------------------------------------------------


def test_the_lists_of_measurements_have_one_element_for_each_report():
    x, t = examples()
    history = fit(small(), x, t, batch_size=10, iterations=7, validation_data=(x[:9], t[:9]))
    lists = (
        history.train_acc_list,
        history.test_acc_list,
        history.test_loss_list,
        history.times,
        history.examples_per_second,
    )
    assert [len(values) for values in lists] == [len(history.steps)] * 5


def test_without_validation_data_the_test_lists_are_empty():
    history = fit(small(), *examples(), epochs=1)
    assert (history.test_acc_list, history.test_loss_list) == ([], [])


def test_measurements_are_of_the_network_at_that_step():
    x, t = examples()
    validation = x[:9] + 0.1, t[:9]
    measured = []

    def callback(report):
        measured.append((report.network.accuracy(x, t), *report.network.evaluate(*validation)))

    history = fit(
        small(), x, t, batch_size=10, epochs=3, validation_data=validation, callbacks=[callback]
    )
    assert measured == list(
        zip(history.train_acc_list, history.test_loss_list, history.test_acc_list, strict=True)
    )


def test_losses_are_those_before_the_update():
    x, t = examples()
    net = small()
    before = net.loss(x, t)
    history = fit(net, x, t, batch_size=N, iterations=1)
    assert history.train_loss_list == [pytest.approx(before, rel=1e-12)]


def test_validation_data_do_not_change_the_training():
    x, t = examples()
    nets = small(), small()
    fit(nets[0], x, t, epochs=2, batch_size=10, seed=0)
    fit(nets[1], x, t, epochs=2, batch_size=10, seed=0, validation_data=(x + 1, t))
    assert bits(nets[0]) == bits(nets[1])


def test_evaluate_sample_measures_on_the_first_examples_only():
    x, t = examples()
    validation = x[::-1].copy(), t[::-1].copy()
    net = small()
    history = fit(net, x, t, epochs=2, validation_data=validation, evaluate_sample=7)
    assert history.train_acc_list[-1] == net.accuracy(x[:7], t[:7])
    # From the layers, whose products are NumPy's.
    expected = net.loss(validation[0][:7], validation[1][:7])
    assert history.test_loss_list[-1] == pytest.approx(expected, rel=1e-14)


def test_evaluate_sample_may_exceed_the_data():
    net, (x, t) = small(), examples()
    history = fit(net, x, t, epochs=2, evaluate_sample=1000)
    assert history.train_acc_list[-1] == net.accuracy(x, t)


def test_the_settings_say_what_was_trained_and_how():
    settings = fit(small(), *examples(), epochs=2, batch_size=8, seed=4).settings
    assert settings == {
        "network": "TwoLayerNet(4-6-3, relu, float64)",
        "optimizer": "SGD(lr=0.1)",
        "batch_size": 8,
        "sampling": "shuffle",
        "seed": 4,
        "examples": 30,
        "iterations": 8,
    }


def test_times_never_go_back():
    history = fit(small(), *examples(), epochs=5)
    assert history.times == sorted(history.times)
    assert history.times[0] >= 0
    assert all(speed > 0 for speed in history.examples_per_second[1:])


# --- callbacks -----------------------------------------------------------------------------------


def test_a_report_has_the_numbers_of_its_moment():
    x, t = examples()
    net, reports = small(), []
    history = fit(
        net,
        x,
        t,
        batch_size=10,
        iterations=7,
        validation_data=(x[:9], t[:9]),
        callbacks=[reports.append],
    )
    losses = history.train_loss_list
    means = [np.mean(losses[a:b]) for a, b in [(0, 3), (3, 6), (6, 7)]]
    assert {type(report) for report in reports} == {Report}
    assert [report.total_steps for report in reports] == [7] * 4
    assert [report.epoch for report in reports] == [0, 1, 2, 7 / 3]
    assert math.isnan(reports[0].train_loss)
    assert [report.train_loss for report in reports[1:]] == pytest.approx(means)
    assert [report.train_acc for report in reports] == history.train_acc_list
    assert [report.test_acc for report in reports] == history.test_acc_list
    assert [report.test_loss for report in reports] == history.test_loss_list
    assert [report.elapsed for report in reports] == history.times
    assert all(report.network is net and report.history is history for report in reports)


def test_a_report_without_validation_data_has_none():
    reports = []
    fit(small(), *examples(), epochs=1, callbacks=[reports.append])
    assert {(report.test_loss, report.test_acc) for report in reports} == {(None, None)}


@pytest.mark.parametrize("stop_at", [0, 3, 6])
def test_a_callback_that_returns_true_stops_the_training(stop_at):
    net = small(Spy)
    history = fit(
        net,
        *examples(),
        batch_size=10,
        epochs=5,
        callbacks=[lambda report: report.step == stop_at],
    )
    assert history.steps[-1] == len(history) == len(net.batches) == stop_at


def test_every_callback_is_called_even_when_the_first_stops():
    calls = []
    fit(small(), *examples(), epochs=5, callbacks=[lambda report: True, calls.append])
    assert [report.step for report in calls] == [0]


def test_what_a_callback_raises_comes_out():
    def callback(report):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(small(), *examples(), epochs=5, callbacks=[callback])


def test_a_learning_rate_changed_by_a_callback_counts():
    sgd, by_hand = fastbp.SGD(lr=0.1), small()
    x, t = examples()

    def halve(report):
        if report.step:
            sgd.lr /= 2

    net = small()
    fit(net, x, t, optimizer=sgd, batch_size=N, epochs=2, callbacks=[halve])
    for lr in (0.1, 0.05):
        fastbp.SGD(lr).update(by_hand.params, by_hand.gradient(x, t))
    for key, p in by_hand.params.items():
        np.testing.assert_allclose(net.params[key], p, rtol=1e-12)


# --- the progress bar ----------------------------------------------------------------------------


def test_progress_true_draws_a_bar_on_stderr(capsys):
    fit(small(), *examples(), epochs=2, batch_size=10, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6" in err
    assert "step" in err


@pytest.mark.parametrize("progress", [False, None])
def test_without_a_terminal_or_a_wish_no_bar_is_drawn(progress, capsys):
    fit(small(), *examples(), epochs=2, progress=progress)
    assert capsys.readouterr() == ("", "")


# --- inputs of every kind ------------------------------------------------------------------------


def trained(x, t, dtype=np.float64, **options):
    net = small(dtype=dtype)
    losses = fit(net, x, t, batch_size=8, epochs=2, seed=0, **options).train_loss_list
    return losses, bits(net)


@pytest.mark.parametrize("dtype", ["u1", "i8", "?", "f2", "f4", ">f8"])
@pytest.mark.parametrize("parameters", [np.float32, np.float64])
def test_inputs_of_any_type_train_like_their_copies_in_the_parameters_type(dtype, parameters):
    x, t = examples()
    x = np.abs(3 * x).astype(dtype)
    assert trained(x, t, parameters) == trained(x.astype(parameters), t, parameters)


def test_images_train_like_rows():
    x, t = examples()
    assert trained(x.reshape(N, 1, 2, 2), t) == trained(x, t)


@pytest.mark.parametrize(
    "form",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.tolist(),
        lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    ],
    ids=["Fortran order", "gaps", "reversed", "list", "read-only"],
)
def test_inputs_train_the_same_in_any_layout(form):
    x, t = examples()
    np.testing.assert_allclose(trained(form(x), t)[0], trained(x, t)[0], rtol=1e-12)


@pytest.mark.parametrize(
    "form",
    [list, lambda t: t.astype(np.uint8), lambda t: t.astype(">i2"), lambda t: np.eye(C)[t]],
    ids=["list", "uint8", "big-endian", "one-hot"],
)
def test_targets_train_the_same_in_any_form(form):
    x, t = examples()
    np.testing.assert_allclose(trained(x, form(t))[0], trained(x, t)[0], rtol=1e-12)


def test_targets_may_be_probabilities():
    x, t = examples()
    soft = 0.9 * np.eye(C)[t] + 0.1 / C
    net = small()
    expected = net.loss(x, soft)
    assert fit(net, x, soft, batch_size=N, iterations=1).train_loss_list[0] == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
@both_samplings
def test_inputs_and_targets_are_never_written_to(sampling, one_hot):
    x, t = examples()
    t = np.eye(C)[t] if one_hot else t
    before = x.tobytes(), t.tobytes()
    fit(small(), x, t, epochs=3, batch_size=8, sampling=sampling, validation_data=(x, t))
    assert (x.tobytes(), t.tobytes()) == before


def test_parameters_are_trained_in_place():
    net = small()
    params = dict(net.params)
    fit(net, *examples(), epochs=1)
    assert all(net.params[key] is p for key, p in params.items())


# --- what is refused, before anything changes ----------------------------------------------------

X, T = examples()
NOT_COUNTS = [0, -1, 1.5, True, "10", [10]]
REFUSED = {
    "network None": ({"network": None}, TypeError, "network"),
    "network of the reference": (
        {"network": reference.TwoLayerNet(D, 6, C)},
        TypeError,
        "network is of type TwoLayerNet",
    ),
    "optimizer by name": ({"optimizer": "sgd"}, TypeError, "optimizer is 'sgd'"),
    "optimizer class": ({"optimizer": fastbp.SGD}, TypeError, "optimizer is"),
    "optimizer of the reference": ({"optimizer": reference.SGD()}, TypeError, "optimizer is"),
    **{
        f"{name} {value!r}": ({name: value}, ValueError, f"{name} is .*positive integer")
        for name in ("batch_size", "epochs", "iterations", "evaluate_sample")
        for value in NOT_COUNTS
    },
    "batch_size None": ({"batch_size": None}, ValueError, "batch_size is None"),
    "sampling": ({"sampling": "random"}, ValueError, "sampling is 'random'"),
    "sampling None": ({"sampling": None}, ValueError, "sampling is None"),
    **{
        f"seed {value!r}, {sampling}": (
            {"seed": value, "sampling": sampling},
            (TypeError, ValueError),
            "seed",
        )
        for value in (-1, 1.5, "0")
        for sampling in ("shuffle", "choice")
    },
    "callback": ({"callbacks": [1]}, TypeError, "callable"),
    "callbacks None": ({"callbacks": None}, TypeError, "callbacks|iterable"),
    "x of one dimension": ({"x": X[:, 0]}, ValueError, r"x has shape \(30,\), expected \(N, 4\)"),
    "x without dimensions": ({"x": 1.0}, ValueError, r"x has shape \(\)"),
    "x too wide": ({"x": np.zeros((N, 5))}, ValueError, r"x has shape \(30, 5\), expected"),
    "x of other images": ({"x": np.zeros((N, 1, 2, 3))}, ValueError, r"\(30, 1, 2, 3\)"),
    "no examples": ({"x": X[:0], "t": T[:0]}, ValueError, "no examples"),
    "complex x": ({"x": X.astype(complex)}, TypeError, "complex128"),
    "x of objects": ({"x": X.astype(object)}, TypeError, "object"),
    "x of strings": ({"x": X.astype(str)}, TypeError, "x has dtype <U"),
    "masked x": ({"x": np.ma.masked_less(X, 0)}, TypeError, "x is a masked array"),
    "ragged x": ({"x": [[1.0] * D, [1.0]]}, TypeError, "x is not a rectangular array"),
    "float labels": ({"t": T.astype(float)}, TypeError, "float64"),
    "boolean labels": ({"t": T > 0}, TypeError, "bool"),
    "masked labels": ({"t": np.ma.masked_equal(T, 0)}, TypeError, "mask"),
    "too few labels": ({"t": T[:-1]}, ValueError, r"\(29,\).*30 rows"),
    "label C": ({"t": np.where(np.arange(N) == 11, C, T)}, IndexError, r"t\[11\] is 3"),
    "label -1": ({"t": np.where(np.arange(N) == 11, -1, T)}, IndexError, r"t\[11\] is -1"),
    "one-hot rows of other classes": ({"t": np.eye(C + 1)[T]}, ValueError, r"\(30, 4\)"),
    "rows that sum to 2": ({"t": 2 * np.eye(C)[T]}, ValueError, r"t\[0\] sums to 2"),
    "targets of three dimensions": ({"t": np.zeros((N, 1, C))}, ValueError, r"\(30, 1, 3\)"),
    "validation_data 5": ({"validation_data": 5}, TypeError, "validation_data"),
    "validation_data x": ({"validation_data": (X,)}, TypeError, "validation_data"),
    "validation_data of three": ({"validation_data": (X, T, T)}, TypeError, "validation_data"),
    "validation x too wide": (
        {"validation_data": (np.zeros((3, 5)), T[:3])},
        ValueError,
        r"validation_data\[0\] has shape \(3, 5\)",
    ),
    "validation x nan": (
        {"validation_data": (np.full((3, D), np.nan), T[:3])},
        ValueError,
        r"validation_data\[0\] is nan in row 0, column 0",
    ),
    "validation label C": (
        {"validation_data": (X[:3], [0, 1, C])},
        IndexError,
        r"validation_data\[1\]",
    ),
    "validation labels too few": (
        {"validation_data": (X[:3], [0, 1])},
        ValueError,
        r"validation_data\[1\]",
    ),
    "no validation examples": (
        {"validation_data": (X[:0], T[:0])},
        ValueError,
        r"validation_data\[0\] has shape \(0, 4\)",
    ),
}
if np.dtype(np.longdouble) != np.float64:
    REFUSED["longdouble x"] = ({"x": X.astype(np.longdouble)}, TypeError, "x has dtype")


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_argument_is_named_before_any_parameter_changes(case):
    changed, error, message = REFUSED[case]
    net, optimizer = small(), fastbp.Adam()
    before = bits(net)
    arguments = {"network": net, "x": X, "t": T, "optimizer": optimizer, **changed}
    with pytest.raises(error, match=message):
        fit(**arguments)
    assert bits(net) == before
    assert optimizer.iter == 0


@pytest.mark.parametrize("case", [case for case in REFUSED if "callback" not in case])
def test_a_bad_argument_is_found_before_the_first_report(case):
    changed, error, message = REFUSED[case]
    reports = []
    arguments = {"network": small(), "x": X, "t": T, "callbacks": [reports.append], **changed}
    with pytest.raises(error, match=message):
        fit(**arguments)
    assert reports == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_the_first_number_that_is_not_finite_is_named(value, dtype):
    x, t = examples()
    x = x.astype(dtype)
    x[17, 2] = x[17, 3] = x[20, 0] = value
    with pytest.raises(ValueError, match=f"x is {value} in row 17, column 2"):
        fit(small(), x, t)


def test_in_images_the_column_counts_all_pixels():
    x, t = examples()
    images = x.reshape(N, 1, 2, 2)
    images[17, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="x is nan in row 17, column 3"):
        fit(small(), images, t)


@pytest.mark.parametrize("row", [0, 16383, 16384, 19999])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_number_that_is_not_finite_is_found_anywhere_in_a_large_array(row, order):
    x = np.zeros((20000, 64), np.float32, order)
    x[row, 63] = np.nan
    with pytest.raises(ValueError, match=f"x is nan in row {row}, column 63"):
        fit(TwoLayerNet(64, 2, 2), x, np.zeros(20000, int))


def test_allow_nonfinite_trains_all_the_same():
    x, t = examples()
    options = {"batch_size": 5, "iterations": 2, "sampling": "choice", "seed": 0}
    spy = small(Spy)
    expected = fit(spy, x, t, **options).train_loss_list
    unused = min(set(range(N)) - set(np.concatenate(spy.batches)))
    x[unused] = np.nan
    assert fit(small(), x, t, allow_nonfinite=True, **options).train_loss_list == expected


def test_allow_nonfinite_goes_on_when_the_loss_is_no_number():
    x, t = examples()
    x[:] = np.nan
    history = fit(small(), x, t, allow_nonfinite=True, epochs=2)
    assert np.isnan(history.train_loss_list).all()


# --- divergence ----------------------------------------------------------------------------------


def diverge(at, value, **options):
    """Train until the loss of step ``at`` is ``value``; return the error and the network."""
    spy = small(Spy, at={at: lambda loss: value})
    with pytest.raises(DivergedError) as caught:
        fit(spy, *examples(), batch_size=10, iterations=20, seed=0, **options)
    return caught.value, spy


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step(value):
    error, spy = diverge(5, value)
    assert error.step == 5
    assert len(spy.batches) == 6
    assert f"the loss is {value:g} at step 5" in str(error)


def test_the_error_has_the_history_up_to_the_last_finite_loss():
    error, _ = diverge(5, math.nan)
    expected = fit(small(Spy), *examples(), batch_size=10, iterations=5, seed=0)
    assert isinstance(error.history, History)
    assert error.history.train_loss_list == expected.train_loss_list
    assert error.history.steps == [0, 3]
    assert error.last_loss == expected.train_loss_list[-1]


def test_the_parameters_are_left_as_after_the_step_before():
    _, spy = diverge(5, math.nan)
    net = small(Spy)
    fit(net, *examples(), batch_size=10, iterations=5, seed=0)
    assert bits(spy) == bits(net)


def test_the_error_says_the_learning_rate_and_a_smaller_one():
    error, _ = diverge(5, math.nan, optimizer=fastbp.Momentum(lr=0.25))
    assert error.learning_rate == 0.25
    assert "learning rate 0.25; try 0.025" in str(error)


def test_a_first_loss_that_is_not_finite_has_none_before_it():
    error, spy = diverge(0, math.nan)
    assert (error.step, error.last_loss) == (0, None)
    assert "the step before" not in str(error)
    assert bits(spy) == bits(small())


WILD = {
    "weight decay": lambda: MultiLayerNet(64, [50], 10, weight_decay_lambda=0.1, seed=0),
    "deep, float32": lambda: MultiLayerNet(64, [50] * 4, 10, dtype=np.float32, seed=0),
    "deep, float32, sigmoid": lambda: MultiLayerNet(
        64, [50] * 2, 10, "sigmoid", weight_decay_lambda=0.1, dtype=np.float32, seed=0
    ),
}


@pytest.mark.parametrize("kind", WILD)
def test_a_learning_rate_of_a_million_ends_in_divergence_with_finite_parameters(kind, digits):
    (x, t), _ = digits
    net = WILD[kind]()
    with pytest.raises(DivergedError) as caught:
        fit(net, x, t, optimizer=fastbp.SGD(lr=1e6), epochs=20, seed=0)
    error = caught.value
    assert error.learning_rate == 1e6
    assert error.step == len(error.history) > 0
    assert math.isfinite(error.last_loss)
    assert finite(net)


def test_a_last_update_that_overflows_is_divergence_too():
    x, t = examples()
    with pytest.raises(DivergedError):
        fit(small(), x, t, optimizer=fastbp.SGD(lr=1e300), iterations=1, validation_data=(x, t))


# --- interruption --------------------------------------------------------------------------------


def interrupt(*_):
    raise KeyboardInterrupt


def after(steps, cls=TwoLayerNet):
    """Return the parameters, and the losses, after so many whole steps.

    Those of the compiled loop; with ``cls=Spy`` those of the layers.
    """
    net = small(cls)
    if not steps:
        return bits(net), []
    losses = fit(net, *examples(), batch_size=10, iterations=steps, seed=0).train_loss_list
    return bits(net), losses


def interrupted(net, **options):
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(net, *examples(), batch_size=10, iterations=20, seed=0, **options)
    assert type(caught.value) is TrainingInterrupted
    return caught.value.history


@pytest.mark.parametrize("step", [0, 3, 6])
def test_an_interrupt_in_a_callback_leaves_the_history_and_the_parameters_of_that_report(step):
    net = small()

    def callback(report):
        if report.step == step:
            interrupt()

    history = interrupted(net, callbacks=[callback])
    assert history.steps == list(range(0, step + 1, 3))
    assert (bits(net), history.train_loss_list) == after(step)


@pytest.mark.parametrize("step", [0, 1, 5])
def test_an_interrupt_in_a_step_leaves_the_parameters_of_the_step_before(step):
    net = small(Spy, at={step: interrupt})
    history = interrupted(net)
    assert (bits(net), history.train_loss_list) == after(step, Spy)


def test_ctrl_c_is_an_interrupt():
    def press(loss):
        signal.raise_signal(signal.SIGINT)
        return loss

    net = small(Spy, at={5: press})
    history = interrupted(net)
    assert (bits(net), history.train_loss_list) == after(6, Spy)  # the step was finished


class InterruptedHalfWay(fastbp.SGD):
    """Ctrl-C comes when two of the four parameters of step 5 have been updated."""

    calls = 0

    def _step(self, *arrays):
        self.calls += 1
        if self.calls == 5 * 4 + 3:
            signal.raise_signal(signal.SIGINT)
        super()._step(*arrays)


def test_an_interrupt_within_an_update_leaves_the_parameters_of_a_whole_update():
    net = small()
    history = interrupted(net, optimizer=InterruptedHalfWay(lr=0.1))
    assert (bits(net), history.train_loss_list) in (after(5, Spy), after(6, Spy))


class InterruptedMeasurement(TwoLayerNet):
    evaluations = 0

    def evaluate(self, x, t):
        self.evaluations += 1
        if self.evaluations == 2:
            interrupt()
        return super().evaluate(x, t)


def test_an_interrupt_in_a_measurement_leaves_lists_of_one_length():
    net = small(InterruptedMeasurement)
    history = interrupted(net)
    assert (bits(net), history.train_loss_list) == after(3, Spy)
    assert len(history.steps) == len(history.train_acc_list) == len(history.times) == 1


class InterruptedValidation(TwoLayerNet):
    evaluations = 0

    def evaluate(self, x, t):
        self.evaluations += 1
        if self.evaluations == 4:  # of the validation data, at the second report
            interrupt()
        return super().evaluate(x, t)


def test_an_interrupt_in_a_validation_leaves_lists_of_one_length():
    history = interrupted(small(InterruptedValidation), validation_data=examples())
    lists = (history.steps, history.train_acc_list, history.test_acc_list, history.test_loss_list)
    assert [len(values) for values in lists] == [1] * 4


def test_the_message_of_an_interrupt_says_how_far_it_got():
    with pytest.raises(TrainingInterrupted, match="after 5 steps"):
        fit(small(Spy, at={5: interrupt}), *examples(), batch_size=10, iterations=20)


def test_training_goes_on_after_an_interrupt():
    net = small(Spy, at={5: interrupt})
    interrupted(net)
    assert len(fit(net, *examples(), batch_size=10, iterations=4)) == 4


# --- the book's Trainer --------------------------------------------------------------------------


def trainer(**options):
    x, t = examples()
    np.random.seed(0)
    arguments = {"epochs": 3, "mini_batch_size": 10, "verbose": False, **options}
    return Trainer(small(), x, t, x[:9], t[:9], **arguments)


def test_the_trainer_keeps_the_books_lists():
    ours = trainer()
    ours.train()
    assert len(ours.train_loss_list) == 9
    assert len(ours.train_acc_list) == len(ours.test_acc_list) == 3
    assert ours.train_loss_list == ours.history.train_loss_list


def test_the_trainer_is_fit_with_choice_from_the_global_generator():
    ours, net = trainer(optimizer="Adam", optimizer_param={"lr": 0.05}), small()
    ours.train()
    np.random.seed(0)
    fit(net, *examples(), optimizer=fastbp.Adam(0.05), batch_size=10, epochs=3, sampling="choice")
    assert bits(ours.network) == bits(net)


def test_training_twice_goes_on_and_the_lists_grow():
    twice, once = trainer(optimizer="Momentum", epochs=2), trainer(optimizer="Momentum", epochs=4)
    np.random.seed(0)
    twice.train()
    twice.train()
    np.random.seed(0)
    once.train()
    assert twice.train_loss_list == once.train_loss_list
    assert bits(twice.network) == bits(once.network)


def test_the_trainer_prints_each_epoch_and_the_final_accuracy(capsys):
    ours = trainer(verbose=True)
    ours.train()
    *epochs, title, final = capsys.readouterr().out.splitlines()
    accuracies = zip(ours.train_acc_list, ours.test_acc_list, strict=True)
    assert epochs == [
        f"=== epoch:{epoch}, train acc:{train:.4f}, test acc:{test:.4f} ==="
        for epoch, (train, test) in enumerate(accuracies)
    ]
    assert "Final Test Accuracy" in title
    assert final == f"test acc:{ours.network.accuracy(*[a[:9] for a in examples()]):.4f}"


def test_the_trainer_is_silent_when_asked(capsys):
    trainer(verbose=False).train()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", LEARNING_RATES)
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_the_trainer_knows_every_optimizer_in_any_case(name, case):
    ours = trainer(optimizer=case(name), optimizer_param={"lr": 0.125})
    assert type(ours.optimizer) is getattr(optimizers, name)
    assert ours.optimizer.lr == 0.125


def test_the_trainers_default_is_the_books_sgd():
    x, t = examples()
    ours = Trainer(small(), x, t, x, t)
    assert repr(ours.optimizer) == "SGD(lr=0.01)"
    assert (ours.epochs, ours.batch_size, ours.verbose) == (20, 100, True)


@pytest.mark.parametrize("name", ["Adamax", "", None, fastbp.SGD(), fastbp.SGD], ids=str)
def test_the_trainer_refuses_an_optimizer_it_does_not_know(name):
    with pytest.raises(ValueError, match=r"Trainer: optimizer is .*expected one of"):
        trainer(optimizer=name)


def test_the_trainer_measures_on_a_sample_when_asked():
    ours = trainer(evaluate_sample_num_per_epoch=5)
    ours.train()
    x, t = examples()
    assert ours.test_acc_list[-1] == ours.network.accuracy(x[:5], t[:5])


def test_an_epoch_is_rounded_up_when_the_batches_do_not_come_out_even():
    ours = trainer(mini_batch_size=8, epochs=2)
    ours.train()
    assert len(ours.train_loss_list) == 8
    assert len(ours.train_acc_list) == 2


def test_the_trainer_shows_divergence():
    ours = trainer(optimizer_param={"lr": 0.1})
    ours.network = small(Spy, at={2: lambda loss: math.nan})
    with pytest.raises(DivergedError, match="nan at step 2"):
        ours.train()


def test_the_errors_of_fit_survive_a_process_boundary():
    record = fastbp.History(train_loss_list=[1.0])
    for error in (DivergedError(1, math.inf, 0.5, record), TrainingInterrupted(record)):
        twin = pickle.loads(pickle.dumps(error))
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.history.train_loss_list == [1.0]


def test_a_seed_of_numpys_can_be_saved(tmp_path):
    history = fit(small(), *examples(), iterations=1, seed=np.int64(3))
    history.save(tmp_path / "history.json")
    assert fastbp.History.load(tmp_path / "history.json").settings["seed"] == 3
