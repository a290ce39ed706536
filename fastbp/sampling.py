"""Which examples are in which mini-batch."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ._arrays import Array

__all__ = ["Batches"]


class Batches:
    """An endless row of mini-batches.

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

    Raises
    ------
    ValueError
        For another sampling or a seed that is none.
    """

    def __init__(self, N: int, batch_size: int, sampling: str, seed: Any = None) -> None:
        if sampling not in ("shuffle", "choice"):
            raise ValueError(f"fit: sampling is {sampling!r}, expected 'shuffle' or 'choice'")
        try:
            self._rng = np.random.default_rng(None if seed is None else operator.index(seed))
        except (TypeError, ValueError) as error:
            raise ValueError(f"fit: seed is {seed!r}, expected an integer >= 0") from error
        self._N, self._batch_size = N, batch_size
        self._shuffle = sampling == "shuffle"
        self._book = seed is None
        self._order = np.empty(0, np.int64)  # what is left of the epoch

    def take(self, count: int) -> tuple[Array, Array]:
        """Return the next batches, as many as asked for or up to the end of the epoch.

        Parameters
        ----------
        count : int
            At least 1.

        Returns
        -------
        rows : int64 array
            The examples, one batch behind the other.
        begins : (S + 1,) int64 array
            Where each batch begins, and where the last one ends.
        """
        if self._shuffle:
            if not self._order.size:
                self._order = self._rng.permutation(self._N)
            rows = self._order[: count * self._batch_size]
            self._order = self._order[rows.size :]
        elif self._book:
            # The book's line, from the book's generator, for several batches at once.
            rows = np.random.choice(self._N, count * self._batch_size)  # noqa: NPY002
        else:
            rows = self._rng.integers(0, self._N, count * self._batch_size)
        begins = np.append(np.arange(0, rows.size, self._batch_size), rows.size)
        return rows.astype(np.int64, copy=False), begins.astype(np.int64, copy=False)
