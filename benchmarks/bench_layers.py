"""The table of cases for asv: times of fastbp, and its ratio to the NumPy of the book."""

from __future__ import annotations

from typing import ClassVar

from .cases import Case, all_cases
from .compare import compare

CASES: dict[str, Case] = {case.name: case for case in all_cases()}


class Times:
    """Seconds a call of fastbp takes, and the pure NumPy of the book as a control."""

    version = "1"
    params: ClassVar = [list(CASES), ["fastbp", "reference"]]
    param_names: ClassVar = ["case", "implementation"]

    def setup(self, name: str, implementation: str) -> None:
        """Build the call, and make it once: the first call compiles."""
        self.call = CASES[name].calls[implementation]()
        self.call()

    def time_call(self, name: str, implementation: str) -> None:
        """One call."""
        self.call()


class Ratios:
    """The baseline's time over fastbp's, timed in turn in one process: comparable anywhere."""

    version = "1"
    unit = "times as fast"
    params: ClassVar = [list(CASES)]
    param_names: ClassVar = ["case"]

    def track_ratio(self, name: str) -> float:
        """Median ratio with one thread."""
        return compare(CASES[name], threads=1, rounds=7).ratio

    track_ratio.unit = unit  # type: ignore[attr-defined]
