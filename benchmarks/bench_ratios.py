"""Ratios of two things timed in turn in one process: the series to compare between machines."""

from __future__ import annotations

import statistics
from typing import ClassVar

from fastbp.bench.timing import measure, turn_length, value

from ._series import find, row, warm

ROUNDS = 8


class Speedup:
    """How many times as long NumPy needs, as the book writes it."""

    version = "3"
    unit = "times as fast"
    param_names: ClassVar = ["case"]
    params: ClassVar = [
        "relu forward + backward, 100 x 50 float32",
        "sigmoid forward + backward, 1000 x 50 float32",
        "softmax loss forward + backward, 1000 x 50 float32",
        "affine forward + backward, 1000 x 784-50 float32",
        "update Adam, 784 x 50 float32",
        "predict, 10000 x 784-50-10 float32",
        "gradient, 1 x 784-50-10 float32",
        "gradient, 100 x 784-50-10 float32",
        "numerical gradient, 3 x 64-50-10 float64",
        "training step, 100 x 784-50-10 float32",
        "60 steps, 100 x 784-50-10 float32",
        "60 steps, no zeros, 100 x 784-50-10 float32",
    ]

    def track_over_numpy(self, parameter: str) -> float:
        """Median of the ratios of the turns; the results are compared first."""
        return measure(row(parameter), ("fastbp",), ROUNDS).ratios["reference"]

    track_over_numpy.unit = unit  # type: ignore[attr-defined]


class Backpropagation:
    """How many times as long the book's central differences need for the same gradient."""

    version = "3"
    unit = "times as fast"
    param_names: ClassVar = ["rows"]
    params: ClassVar = [1, 3, 100]

    def track_over_numerical(self, rows: int) -> float:
        """Median of the ratios of six turns: a numerical gradient takes half a second."""
        case = find("gradient", f"{rows} x 64-50-10 float64")
        return measure(case, ("fastbp", "numerical"), 3).ratios["numerical"]

    track_over_numerical.unit = unit  # type: ignore[attr-defined]


class ShareOfPeak:
    """Part of the multiplications and additions that a core of this machine could do."""

    version = "1"
    unit = "%"
    param_names: ClassVar = ["case"]
    params: ClassVar = [
        "affine forward + backward, 1000 x 784-50 float32",
        "affine forward + backward, 100 x 784-512 float64",
        "60 steps, no zeros, 100 x 784-50-10 float32",
    ]

    def track_share(self, parameter: str) -> float:
        """Median of the rounds; the peak is measured in each, next to the call."""
        from fastbp.bench.peaks import peak

        case = row(parameter)
        call = warm(case)
        peak(case.dtype)  # compiles
        number = turn_length(call)
        return 100 * statistics.median(
            case.flops / value(call, number) / peak(case.dtype) for _ in range(ROUNDS)
        )

    track_share.unit = unit  # type: ignore[attr-defined]
