"""Pictures: the curves of a training, and the examples a network gets most wrong.

Needs the extra ``plot``: ``pip install 'fastbp[plot]'``.  The figures are matplotlib's, made
without pyplot, so that no window system is touched and nothing is left open.
"""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import Array, as_targets
from ._files import write_atomically
from .functions import softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .history import History
    from .network import Network

__all__ = ["curves", "hardest", "mistakes", "write_figure"]

TRAIN_COLOR, TEST_COLOR = "#4269d0", "#ff725c"


def _figure(**options: Any) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plots need matplotlib: pip install 'fastbp[plot]'", name=error.name
        ) from error
    return Figure(layout="constrained", **options)


def curves(history: History) -> Figure:
    """Draw the loss of every step, with its running mean, and the accuracies.

    Parameters
    ----------
    history : History

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(figsize=(9, 3.6))
    left, right = figure.subplots(1, 2)
    losses = np.array(history.train_loss_list)
    left.plot(losses, color=TRAIN_COLOR, alpha=0.25, linewidth=0.8)
    width = max(1, len(losses) // 50)
    if len(losses) >= width:
        mean = np.convolve(losses, np.full(width, 1 / width), "valid")
        left.plot(
            np.arange(len(mean)) + (width - 1) / 2, mean, color=TRAIN_COLOR, label="running mean"
        )
        left.legend(frameon=False)
    left.set(xlabel="step", ylabel="loss (nats)", title="Loss")
    right.plot(history.steps, history.train_acc_list, color=TRAIN_COLOR, label="training")
    if history.test_acc_list:
        right.plot(history.steps, history.test_acc_list, color=TEST_COLOR, label="test")
    right.set(xlabel="step", ylabel="accuracy", title="Accuracy", ylim=(None, 1.0))
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def mistakes(
    network: Network, images: Any, t: Any, shape: tuple[int, int], count: int = 20
) -> Figure:
    """Draw the images whose own label the network finds least probable.

    Parameters
    ----------
    network : Network
    images : (N, D) array
    t : (N,) integer labels
    shape : (height, width)
        With height * width = D.
    count : int, default 20

    Returns
    -------
    matplotlib.figure.Figure
        Over each image its label, what the network takes it for if that is another class, and the
        probability of what it takes it for.
    """
    probability, order = hardest(network, images, t, count)
    columns = min(5, max(1, len(order)))
    rows = -(-max(1, len(order)) // columns)
    figure = _figure(figsize=(1.7 * columns, 1.9 * rows))
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, n in zip(figure.axes, order, strict=False):
        guess = int(probability[n].argmax())
        axes.imshow(np.reshape(images[n], shape), cmap="gray_r")
        right = guess == t[n]
        title = f"{t[n]}" if right else f"{t[n]}, read as {guess}"
        title += f" ({probability[n, guess]:.0%})"
        axes.set_title(title, fontsize=9, color="black" if right else TEST_COLOR)
    return figure


def hardest(network: Network, x: Any, t: Any, count: int) -> tuple[Array, Array]:
    """Return all class probabilities, (N, C), and the rows whose label is least probable, first.

    Parameters
    ----------
    network : Network
    x : (N, D) array
    t : (N,) integer labels
    count : int

    Returns
    -------
    probability : (N, C) array
    order : (count,) array of int

    Raises
    ------
    IndexError, TypeError, ValueError
        For labels that are none, or not one for each row.
    """
    probability = softmax(network.predict(x))
    N, C = probability.shape
    labels = as_targets("hardest", t, N, C, probability.dtype)
    own = probability[np.arange(N), labels]
    return probability, np.argsort(own, kind="stable")[:count]


def write_figure(figure: Figure, path: str | PathLike[str]) -> None:
    """Write a figure, whole or not at all, in the format the path's ending names.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
        An existing file is replaced.

    Raises
    ------
    OSError
        As the operating system says.
    ValueError
        For an ending matplotlib has no format for.
    """
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:] or "png", dpi=120)
    write_atomically(Path(path), content.getvalue())
