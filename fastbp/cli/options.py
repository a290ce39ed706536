"""The arguments that commands share, with messages that say what each one accepts."""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import DatasetError, load_digits, load_mnist, load_npz


class UsageError(Exception):
    """The command was asked for wrongly: exit code 2."""


class CommandFailed(Exception):  # noqa: N818 - not every failure is an error of ours
    """The command ran and failed: exit code 1."""


def _number(kind: type, accepts: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


positive_int = _number(int, lambda n: n >= 1, "a positive integer")
seed_int = _number(int, lambda n: 0 <= n < 2**63, "an integer of at least 0 and below 2**63")
positive_float = _number(float, lambda v: 0 < v < math.inf, "a positive number")
nonnegative_float = _number(float, lambda v: 0 <= v < math.inf, "a number of at least 0")


def hidden_sizes(text: str) -> list[int]:
    """Parse ``50`` or ``100,50``."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of positive integers such as 50 or 100,50"
        )
    return sizes


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data`` and ``--data-dir``."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default="digits",
        metavar="digits|mnist|FILE.npz",
        help="the digits inside the package (default), MNIST, or arrays x_train, t_train, x_test, "
        "t_test (or x and t) in a file of numpy.savez",
    )
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the folder with MNIST's four files; otherwise FASTBP_DATA_DIR, the cache, a download",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add what makes a network: sizes, activation, type and seed."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--hidden",
        type=hidden_sizes,
        default=[50],
        metavar="N[,N...]",
        help="widths of the hidden layers, such as 50 (default) or 100,50",
    )
    group.add_argument("--activation", choices=["relu", "sigmoid"], default="relu")
    group.add_argument(
        "--weight-init-std",
        type=nonnegative_float,
        metavar="STD",
        help="standard deviation of the weights at the start (the book has 0.01; default: "
        "sqrt(2 / inputs) for relu, sqrt(1 / inputs) for sigmoid)",
    )
    group.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    group.add_argument(
        "--seed", type=seed_int, default=0, metavar="N", help="of weights and batches (default: 0)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="at most this many (default: as NumPy)"
    )


def obey_environment() -> None:
    """Read FASTBP_NUM_THREADS, which the first import of ``threads`` does."""
    try:
        importlib.import_module("fastbp.threads")
    except ValueError as error:
        raise UsageError(str(error)) from error


def set_threads(options: argparse.Namespace) -> None:
    """Obey ``--threads``."""
    from ..threads import available_cpus, set_num_threads

    if options.threads is not None:
        try:
            set_num_threads(options.threads)
        except ValueError as error:
            raise UsageError(
                f"argument --threads: {options.threads} is not an integer from 1 to "
                f"{available_cpus()}, the CPUs here"
            ) from error


# A file with larger labels has something else in the place of labels.
MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class Data:
    """A data set as the commands use it: rows, labels, and what the pictures look like.

    Attributes
    ----------
    name : str
    x_train, t_train, x_test, t_test : array
        (N, D) floats and (N,) labels.
    classes : int
    image_shape : (int, int) or None
        Height and width, where the rows are images: 0 is the ground, 1 the ink.
    """

    name: str
    x_train: Any
    t_train: Any
    x_test: Any
    t_test: Any
    classes: int
    image_shape: tuple[int, int] | None


def load_data(options: argparse.Namespace) -> Data:
    """Load what ``--data`` names."""
    name = options.data
    if options.data_dir is not None and name != "mnist":
        raise UsageError("argument --data-dir: only --data mnist is looked for in a folder")
    try:
        if name == "digits":
            split, shape = load_digits(), (8, 8)
        elif name == "mnist":
            split, shape = load_mnist(data_dir=options.data_dir), (28, 28)
        elif name.lower().endswith(".npz"):
            split, shape = load_npz(name), None
        else:
            raise UsageError(
                f"argument --data: {name!r} is not digits, mnist or the path of a .npz file"
            )
    except DatasetError as error:
        raise UsageError(f"argument --data: {'; '.join(str(error).splitlines())}") from error
    (x_train, t_train), (x_test, t_test) = split
    labels = [t if t.ndim == 1 else t.argmax(axis=1) for t in (t_train, t_test)]
    classes = 1 + max(int(t.max()) for t in labels)
    if t_train.ndim == 2:
        classes = t_train.shape[1]
    if classes > MAX_CLASSES:
        raise UsageError(
            f"argument --data: {name}: a label of {classes - 1:,}; labels are numbered from 0, and "
            f"at most {MAX_CLASSES:,} classes are taken from a file"
        )
    return Data(name, x_train, labels[0], x_test, labels[1], classes, shape)


def build_network(options: argparse.Namespace, data: Data) -> Any:
    """Build the network the options describe."""
    from ..network import MultiLayerNet

    std = options.activation if options.weight_init_std is None else options.weight_init_std
    try:
        return MultiLayerNet(
            data.x_train.shape[1],
            options.hidden,
            data.classes,
            activation=options.activation,
            weight_init_std=std,
            weight_decay_lambda=getattr(options, "weight_decay", 0.0),
            dtype=np.dtype(options.dtype),
            seed=options.seed,
        )
    except (MemoryError, OverflowError, ValueError) as error:
        raise UsageError(
            f"argument --hidden: this memory does not hold such a network ({error})"
        ) from error
