"""Handwritten digits of 8 x 8 pixels: small enough to travel inside the package.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49, under the licence CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/).

``digits.npz`` holds the 1797 images of the source's test file, ``optdigits.tes``, which is also
what scikit-learn's ``load_digits`` returns.  Changed: the pixels (0 to 16) are stored as uint8,
and the images are split, by a permutation from seed 0, into 1437 to train on and 360, every
fifth, to test with.  The source's training file, by other writers, is not included: a test image
here has the hand of somebody seen in training, and scores come out higher than on the source's
own split.  The script ``tests/dataset/make_digits.py`` made the file.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from ._book_form import Split, book_form

_WHITE = 16


def load_digits(normalize: bool = True, flatten: bool = True, one_hot_label: bool = False) -> Split:
    """Load 1437 training and 360 test images of handwritten digits, 8 x 8 pixels.

    Nothing is downloaded; the split is always the same.

    Parameters
    ----------
    normalize : bool, default True
        Pixels as float32 in [0, 1].  Otherwise uint8 in [0, 16].
    flatten : bool, default True
        Images as rows (N, 64).  Otherwise (N, 1, 8, 8).
    one_hot_label : bool, default False
        Targets as rows of ten, float32.  Otherwise as class numbers, uint8.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        x : (N, 64) or (N, 1, 8, 8), float32 or uint8; t : (N,) uint8 or (N, 10) float32.

    Notes
    -----
    The images are by E. Alpaydin and C. Kaynak (UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49), CC BY 4.0.
    """
    with (
        files("fastbp.dataset").joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        train, test = (
            book_form(
                data[f"x_{part}"],
                data[f"t_{part}"],
                white=_WHITE,
                normalize=normalize,
                flatten=flatten,
                one_hot_label=one_hot_label,
            )
            for part in ("train", "test")
        )
    return train, test
