"""The form in which the book's loaders hand out images: one home for its three switches."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

CLASSES = 10

Examples: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # (x, t)
Split: TypeAlias = tuple[Examples, Examples]  # (x_train, t_train), (x_test, t_test)


def book_form(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    *,
    white: int,
    normalize: bool,
    flatten: bool,
    one_hot_label: bool,
) -> Examples:
    """Arrange images and labels as the book's ``load_mnist`` does.

    Parameters
    ----------
    images : (N, H, W) uint8
    labels : (N,) uint8 in [0, 10)
    white : int
        The largest pixel value.
    normalize : bool
        Divide by ``white``: float32 in [0, 1].  Otherwise the pixels stay uint8.
    flatten : bool
        One row an image.  Otherwise one channel, as a convolution wants it.
    one_hot_label : bool
        One row of ten a label, 1 at the class and 0 elsewhere.

    Returns
    -------
    x : (N, H * W) or (N, 1, H, W), float32 or uint8
    t : (N,) uint8, or (N, 10) float32
    """
    # The output's dtype makes it one pass; `astype` and then `/` would hold two float arrays.
    x = np.divide(images, np.float32(white), dtype=np.float32) if normalize else images
    x = x.reshape(len(x), -1) if flatten else x[:, np.newaxis]
    t = np.eye(CLASSES, dtype=np.float32)[labels] if one_hot_label else labels
    return x, t
