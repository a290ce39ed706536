"""What asv's series share: rows of the table of cases, found by the words of asv's parameters.

A parameter is a shape and a type in one word, ``"1000 x 784-50 float32"``: rows, then the widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from fastbp.bench.cases import Case, all_cases
from fastbp.bench.machine import Unavailable


def word(case: Case) -> str:
    """Return the parameter that names a case beside its operation and threads."""
    rows, *widths = case.shape or ("",)
    shape = f"{rows} x {'-'.join(map(str, widths))}" if widths else str(rows)
    return f"{shape} {case.dtype}".strip()


def _index() -> Iterator[tuple[tuple[str, str, int], Case]]:
    for case in all_cases():
        yield (case.operation, word(case), case.threads), case


CASES = dict(_index())


def find(operation: str, parameter: str, threads: int = 1) -> Case:
    """Return a row of the table.

    Raises
    ------
    KeyError
        If there is no such row.
    """
    return CASES[operation, parameter, threads]


def row(parameter: str, threads: int = 1) -> Case:
    """Return the row that ``"operation, shape type"`` names.

    Raises
    ------
    KeyError
        If there is no such row.
    """
    operation, _, shape = parameter.rpartition(", ")
    return find(operation, shape, threads)


def warm(case: Case, implementation: str = "fastbp") -> Any:
    """Return a call that has been made once: the first compiles, or reads compiled code.

    Raises
    ------
    NotImplementedError
        Where it cannot take part: asv shows "n/a".
    """
    try:
        call = case.build(implementation)
    except Unavailable as reason:
        raise NotImplementedError(str(reason)) from None
    call()
    return call


class _Directions:
    """Seconds of a layer's two directions."""

    version = "1"
    operation: ClassVar[str]
    param_names: ClassVar = ["case"]
    params: ClassVar[list[str]]

    def setup(self, parameter: str) -> None:
        """Build both calls, and make each once."""
        self.forward = warm(find(f"{self.operation} forward", parameter))
        self.backward = warm(find(f"{self.operation} backward", parameter))

    def time_forward(self, parameter: str) -> None:
        """Forward."""
        self.forward()

    def time_backward(self, parameter: str) -> None:
        """Backward, of what forward has kept."""
        self.backward()


class _Operation:
    """Seconds of one operation."""

    version = "1"
    operation: ClassVar[str]
    threads: ClassVar[int] = 1
    param_names: ClassVar = ["case"]
    params: ClassVar[list[str]]

    def setup(self, parameter: str) -> None:
        """Build the call, and make it once."""
        self.call = warm(find(self.operation, parameter, self.threads))

    def time_call(self, parameter: str) -> None:
        """One call."""
        self.call()
