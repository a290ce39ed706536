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

    def state(self) -> tuple[dict[str, Any], Array]:
        """Return what the next batches depend on.

        Returns
        -------
        generator : dict
            The state of the random generator, as NumPy has it.
        order : int64 array
            What is left of the epoch.
        """
        if self._book and not self._shuffle:
            generator: Any = np.random.get_state(legacy=False)  # noqa: NPY002
            if generator["bit_generator"] != "MT19937":
                raise TypeError(
                    "fit: NumPy's global generator is a "
                    f"{generator['bit_generator']}, checkpoints know MT19937 alone; give a seed"
                )
            return generator, self._order
        return dict(self._rng.bit_generator.state), self._order

    def restore(self, generator: dict[str, Any], order: Array) -> None:
        """Go on from a state, which must be one of such batches: see :meth:`check`."""
        if self._book and not self._shuffle:
            np.random.set_state(generator)  # noqa: NPY002
        else:
            self._rng.bit_generator.state = generator
        self._order = order

    def check(self, generator: Any, order: Any, step: int) -> None:
        """Raise ValueError unless this is a state that such batches could have after so many steps.

        NumPy takes a position outside of its generator's memory, and the compiled loop any row.
        """
        _check_generator(generator, self.state()[0])
        per_epoch = -(-self._N // self._batch_size)
        taken = step % per_epoch * self._batch_size
        left = self._N - taken if self._shuffle and taken else 0
        if type(order) is not np.ndarray or order.dtype != np.int64 or order.shape != (left,):
            raise ValueError(f"the order of the examples does not fit step {step}")
        if left and (order.min() < 0 or order.max() >= self._N or len(np.unique(order)) < left):
            raise ValueError("the order of the examples has rows that are none, or one twice")

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
                # On Windows NumPy 1 gives int32.
                self._order = self._rng.permutation(self._N).astype(np.int64, copy=False)
            rows = self._order[: count * self._batch_size]
            self._order = self._order[rows.size :]
        elif self._book:
            # The book's line, from the book's generator, for several batches at once.
            rows = np.random.choice(self._N, count * self._batch_size)  # noqa: NPY002
        else:
            rows = self._rng.integers(0, self._N, count * self._batch_size)
        begins = np.append(np.arange(0, rows.size, self._batch_size), rows.size)
        return rows.astype(np.int64, copy=False), begins.astype(np.int64, copy=False)


# The largest values of integers in the states of NumPy's generators.
LARGEST = {"key": 2**32 - 1, "pos": 624, "has_gauss": 1, "has_uint32": 1, "uinteger": 2**32 - 1}
LARGEST |= {"state": 2**128 - 1, "inc": 2**128 - 1}


def _check_generator(found: Any, like: Any, name: str = "") -> None:
    """Raise ValueError unless a generator's state has the form and the bounds of another one."""
    if isinstance(like, dict):
        good = isinstance(found, dict) and found.keys() == like.keys()
        for key in like if good else ():
            _check_generator(found[key], like[key], key)
    elif isinstance(like, np.ndarray):
        good = isinstance(found, np.ndarray)
        good = good and (found.dtype, found.shape) == (like.dtype, like.shape)
    elif isinstance(like, str | float):
        good = found == like if isinstance(like, str) else type(found) is float
    else:
        good = type(found) is int and 0 <= found <= LARGEST[name]
    if not good:
        raise ValueError(f"the state of its random generator is not one of NumPy's ({name})")
