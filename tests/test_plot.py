import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import History, TwoLayerNet, reference
from fastbp.plot import curves, hardest, mistakes, write_figure

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra plot")
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


def history(steps=120, test=True):
    """Return a record whose loss falls on a straight line."""
    return History(
        train_loss_list=[float(steps - i) for i in range(steps)],
        steps=[0, steps // 2, steps],
        train_acc_list=[0.1, 0.5, 0.9],
        test_acc_list=[0.1, 0.4, 0.8] if test else [],
    )


def drawn(axes):
    """Return the lines of axes as points."""
    return [np.column_stack(line.get_data()) for line in axes.lines]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# --- curves --------------------------------------------------------------------------------------


def test_curves_are_a_figure_of_loss_and_accuracy():
    figure = curves(history())
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in figure.axes] == ["Loss", "Accuracy"]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("step", "loss (nats)"),
        ("step", "accuracy"),
    ]


def test_the_loss_of_every_step_is_drawn():
    record = history()
    points = drawn(curves(record).axes[0])[0]
    np.testing.assert_array_equal(points, list(enumerate(record.train_loss_list)))


@pytest.mark.parametrize("steps", [1, 2, 49, 50, 100, 149, 1000])
def test_the_running_mean_of_a_straight_line_lies_on_it(steps):
    raw, mean = drawn(curves(history(steps)).axes[0])
    np.testing.assert_allclose(mean[:, 1], steps - mean[:, 0], rtol=1e-12)
    assert 0 < len(mean) <= len(raw)


def test_the_running_mean_is_smoother():
    record = History(train_loss_list=[1.0, 3.0] * 500)
    raw, mean = drawn(curves(record).axes[0])
    assert np.ptp(mean[:, 1]) < np.ptp(raw[:, 1]) / 5


def test_accuracies_are_drawn_at_their_steps():
    record = history()
    training, test = drawn(curves(record).axes[1])
    expected = zip(record.steps, record.train_acc_list, strict=True)
    np.testing.assert_array_equal(training, list(expected))
    np.testing.assert_array_equal(test[:, 1], record.test_acc_list)


@pytest.mark.parametrize(("test", "names"), [(True, ["training", "test"]), (False, ["training"])])
def test_the_legend_names_what_is_drawn(test, names):
    assert legend(curves(history(test=test)).axes[1]) == names


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_record_without_steps_can_be_drawn(ending, tmp_path):
    record = History(steps=[0], train_acc_list=[0.1])
    write_figure(curves(record), tmp_path / f"curves.{ending}")
    assert (tmp_path / f"curves.{ending}").stat().st_size > 0


def test_an_empty_record_can_be_drawn(tmp_path):
    write_figure(curves(History()), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_drawing_leaves_the_record_alone():
    record = history()
    curves(record)
    assert record == history()


def test_no_window_system_is_touched():
    code = (
        "import sys, fastbp; fastbp.History(train_loss_list=[1.0]).plot(); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(fastbp.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# --- the hardest examples ------------------------------------------------------------------------


@pytest.fixture
def network():
    """A network whose logits are its four inputs."""
    net = TwoLayerNet(4, 4, 4)
    net.params["W1"][...] = net.params["W2"][...] = np.eye(4)
    return net


# Probability of label 0, from the first row to the last: high, low, lowest, middle, low again.
IMAGES = np.array(
    [[9, 1, 0, 0], [1, 4, 0, 0], [0, 9, 0, 0], [2, 1, 0, 0], [1, 4, 0, 0]], dtype=np.float64
)
LABELS = np.zeros(5, int)


def test_probabilities_are_the_softmax_of_the_predictions(network):
    probability, _ = hardest(network, IMAGES, LABELS, 3)
    np.testing.assert_allclose(probability, reference.softmax(IMAGES), rtol=1e-12)


@pytest.mark.parametrize(
    ("count", "order"),
    [(0, []), (1, [2]), (3, [2, 1, 4]), (5, [2, 1, 4, 3, 0]), (9, [2, 1, 4, 3, 0])],
)
def test_the_least_probable_label_comes_first_and_equals_in_their_order(network, count, order):
    assert list(hardest(network, IMAGES, LABELS, count)[1]) == order


def test_each_example_is_judged_by_its_own_label(network):
    _, order = hardest(network, IMAGES, [1, 1, 1, 1, 1], 5)
    assert order[0] == 0
    assert order[-1] == 2


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_refused(network, label):
    with pytest.raises(IndexError, match=str(label)):
        hardest(network, IMAGES, [0, 0, label, 0, 0], 5)


@pytest.mark.parametrize("count", [4, 6, 0])
def test_as_many_labels_as_images_are_wanted(network, count):
    with pytest.raises(ValueError, match=rf"{count}.*5|5.*{count}"):
        hardest(network, IMAGES, np.zeros(count, int), 5)


# --- mistakes ------------------------------------------------------------------------------------


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.images]


def test_every_image_has_its_label_and_what_the_network_reads(network):
    figure = mistakes(network, IMAGES, LABELS, (2, 2), 3)
    assert titles(figure) == [
        "0, read as 1 (100%)",
        "0, read as 1 (92%)",
        "0, read as 1 (92%)",
    ]


def test_an_image_read_rightly_has_its_label_alone(network):
    figure = mistakes(network, IMAGES, LABELS, (2, 2))
    assert titles(figure)[3:] == ["0 (61%)", "0 (100%)"]


def test_wrong_and_right_have_different_colours(network):
    axes = [a for a in mistakes(network, IMAGES, LABELS, (2, 2)).axes if a.images]
    colours = [to_hex(a.title.get_color()) for a in axes]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[-1]


def test_the_images_are_drawn_in_their_shape(network):
    figure = mistakes(network, IMAGES, LABELS, (1, 4), 1)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGES[2:3])


@pytest.mark.parametrize("count", [0, 1, 4, 5, 20])
def test_at_most_count_images_are_drawn(network, count):
    figure = mistakes(network, IMAGES, LABELS, (2, 2), count)
    assert isinstance(figure, Figure)
    assert len(titles(figure)) == min(count, 5)


def test_many_images_stand_in_rows_of_five(network):
    figure = mistakes(network, np.tile(IMAGES, (3, 1)), np.zeros(15, int), (2, 2), 12)
    assert len(titles(figure)) == 12
    assert len(figure.axes) == 15


def test_drawing_leaves_images_and_labels_alone(network):
    before = IMAGES.tobytes(), LABELS.tobytes()
    mistakes(network, IMAGES, LABELS, (2, 2))
    assert (IMAGES.tobytes(), LABELS.tobytes()) == before


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "signature"),
    [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG"), ("a", b"\x89PNG")],
)
def test_the_ending_names_the_format(name, signature, tmp_path):
    write_figure(curves(history()), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(signature)


def test_an_unknown_ending_leaves_the_old_file(tmp_path):
    path = tmp_path / "curves.xyz"
    path.write_text("old")
    with pytest.raises(ValueError, match="xyz"):
        write_figure(curves(history()), path)
    assert path.read_text() == "old"


def test_a_path_may_be_text(tmp_path):
    write_figure(curves(history()), str(tmp_path / "curves.png"))
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastbp\[plot\]'"):
        curves(history())
