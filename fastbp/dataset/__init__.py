"""Data to train on: two sets of handwritten digits, and the user's own arrays.

Every loader returns ``(x_train, t_train), (x_test, t_test)``, as the book's ``load_mnist`` does.
A file that cannot be used raises `DatasetError`, which names the file and the reason.
"""

from .digits import load_digits
from .errors import DatasetError
from .idx import read_idx
from .mnist import find_mnist, load_mnist
from .npy import load_npy
from .npz import load_npz

__all__ = [
    "DatasetError",
    "find_mnist",
    "load_digits",
    "load_mnist",
    "load_npy",
    "load_npz",
    "read_idx",
]
