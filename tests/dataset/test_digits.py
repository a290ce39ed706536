import runpy
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from fastbp.dataset import load_digits

PACKAGE = files("fastbp.dataset")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_form(normalize, flatten, one_hot_label):
    for (x, t), n in zip(load_digits(normalize, flatten, one_hot_label), (1437, 360), strict=True):
        assert x.shape == ((n, 64) if flatten else (n, 1, 8, 8))
        assert x.dtype == (np.float32 if normalize else np.uint8)
        assert (x.min(), x.max()) == (0, 1 if normalize else 16)
        assert t.shape == ((n, 10) if one_hot_label else (n,))
        assert t.dtype == (np.float32 if one_hot_label else np.uint8)


def test_the_forms_hold_the_same_data():
    plain = load_digits(normalize=False, flatten=False)
    arranged = load_digits(one_hot_label=True)
    assert load_digits()[0][0].flags.c_contiguous
    for (images, labels), (x, t) in zip(plain, arranged, strict=True):
        np.testing.assert_array_equal(x * 16, images.reshape(len(images), 64))
        np.testing.assert_array_equal(t.argmax(axis=1), labels)
        np.testing.assert_array_equal(np.sort(t, axis=1)[:, [0, 8, 9]], [[0, 0, 1]] * len(t))


def test_every_class_is_in_both_halves():
    (_, t_train), (_, t_test) = load_digits()
    assert np.bincount(t_train, minlength=10).min() > 130
    assert np.bincount(t_test, minlength=10).min() > 28


def test_halves_do_not_overlap():
    (x_train, _), (x_test, _) = load_digits(normalize=False)
    train = {row.tobytes() for row in x_train}
    assert not any(row.tobytes() in train for row in x_test)


def test_a_caller_may_write_into_the_arrays():
    (x, t), _ = load_digits(normalize=False)
    x[:] = 0
    t[:] = 0
    assert load_digits(normalize=False)[0][0].any()


def test_a_nearest_neighbour_reads_most_of_them():
    # Pixels and labels belong together, in both halves.
    (x_train, t_train), (x_test, t_test) = load_digits()
    distance = (x_train**2).sum(axis=1) - 2 * x_test @ x_train.T
    assert (t_train[distance.argmin(axis=1)] == t_test).mean() > 0.97


def test_file_is_small_and_says_whose_it_is():
    assert len(PACKAGE.joinpath("digits.npz").read_bytes()) < 100_000
    licence = PACKAGE.joinpath("DIGITS-LICENSE.txt").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "creativecommons.org/licenses/by/4.0"):
        assert words in licence
        assert words in load_digits.__doc__ or "creativecommons" in words


def test_file_is_what_the_script_makes():
    pytest.importorskip("sklearn", reason="the original images come from scikit-learn")
    made = runpy.run_path(str(Path(__file__).with_name("make_digits.py")))["digits"]()
    with PACKAGE.joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
        assert set(stored) == set(made)
        for name, array in made.items():
            np.testing.assert_array_equal(stored[name], array, strict=True)


def test_file_holds_no_pickle():
    with PACKAGE.joinpath("digits.npz").open("rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            assert b"'descr': '|u1'" in archive.read(name)[:128]
