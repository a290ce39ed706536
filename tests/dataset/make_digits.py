"""Make `fastbp/dataset/digits.npz` from scikit-learn's copy of the UCI digits.

    python tests/dataset/make_digits.py

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0.
"""

from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[2] / "fastbp" / "dataset" / "digits.npz"


def digits():
    """Return the four arrays of the file: uint8, every fifth image of a permutation for testing."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images = source.images.astype(np.uint8)  # whole numbers from 0 to 16, stored as float64
    labels = source.target.astype(np.uint8)
    # The raw bits of PCG64 are the same in every version of NumPy; `permutation` need not be.
    order = np.argsort(np.random.PCG64(0).random_raw(len(images)), kind="stable")
    test, train = order[::5], np.delete(order, np.s_[::5])
    return {
        "x_train": images[train],
        "t_train": labels[train],
        "x_test": images[test],
        "t_test": labels[test],
    }


if __name__ == "__main__":
    np.savez_compressed(TARGET, **digits())
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
