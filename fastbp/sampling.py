"""Which examples are in which mini-batch."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._arrays import Array

__all__ = ["batches"]


def batches(N: int, batch_size: int, sampling: str, seed: Any = None) -> Iterator[Array]:
    """Return an endless iterator over the row numbers of mini-batches.

    Parameters
    ----------
    N : int
        Number of examples.
    batch_size : int
        At most N.
    sampling : {'shuffle', 'choice'}
        'shuffle' takes every example once an epoch, the last batch of which may be smaller;
        'choice' draws each batch with replacement.
    seed : int, optional
        Without it 'choice' draws from NumPy's global generator, as the book does, and 'shuffle'
        from fresh entropy.

    Returns
    -------
    iterator of (batch_size,) arrays of int

    Raises
    ------
    ValueError
        For another sampling or a seed that is none, at once.
    """
    if sampling not in ("shuffle", "choice"):
        raise ValueError(f"fit: sampling is {sampling!r}, expected 'shuffle' or 'choice'")
    try:
        rng = np.random.default_rng(None if seed is None else operator.index(seed))
    except (TypeError, ValueError) as error:
        raise ValueError(f"fit: seed is {seed!r}, expected an integer >= 0") from error
    if sampling == "shuffle":
        return _shuffled(N, batch_size, rng)
    return _chosen(N, batch_size, None if seed is None else rng)


def _shuffled(N: int, batch_size: int, rng: np.random.Generator) -> Iterator[Array]:
    while True:
        order = rng.permutation(N)
        for start in range(0, N, batch_size):
            yield order[start : start + batch_size]


def _chosen(N: int, batch_size: int, rng: np.random.Generator | None) -> Iterator[Array]:
    while True:
        if rng is None:
            # The book's line, from the book's generator.
            yield np.random.choice(N, batch_size)  # noqa: NPY002
        else:
            yield rng.integers(0, N, batch_size)
