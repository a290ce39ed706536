"""Seconds of whole networks: predictions, gradients, steps, an epoch, and a whole training."""

from __future__ import annotations

from typing import ClassVar

from ._series import _Operation, row, warm


class Predict(_Operation):
    """The outputs of all rows."""

    operation = "predict"
    params: ClassVar = ["1 x 784-50-10 float32", "10000 x 784-50-10 float32"]


class Gradient(_Operation):
    """The gradient by backpropagation, of one batch."""

    operation = "gradient"
    params: ClassVar = [
        "1 x 784-50-10 float32", "100 x 784-50-10 float32", "100 x 784-50-10 float64",
        "256 x 784-512-256-10 float32",
    ]  # fmt: skip


class NumericalGradient(_Operation):
    """The gradient by central differences."""

    operation = "numerical gradient"
    params: ClassVar = ["3 x 64-50-10 float64", "100 x 64-50-10 float64"]


class Step(_Operation):
    """A step in a loop of the user's own: gradient, then update."""

    operation = "training step"
    params: ClassVar = ["100 x 784-50-10 float32"]


class Fit:
    """Steps through ``fit``, from the initial weights; on two threads where there are two CPUs."""

    version = "1"
    param_names: ClassVar = ["case", "threads"]
    params: ClassVar = [
        [
            "60 steps, 50 x 64-50-10 float32",
            "60 steps, Adam, 50 x 64-50-10 float32",
            "60 steps, 100 x 784-50-10 float32",
            "60 steps, no zeros, 100 x 784-50-10 float32",
            "10 steps, 256 x 784-512-256-10 float32",
            "one epoch of 6,000 images, 100 x 784-50-10 float32",
        ],
        [1, 2],
    ]

    def setup(self, parameter: str, threads: int) -> None:
        """Build the call, and make it once."""
        self.call = warm(row(parameter, threads))

    def time_steps(self, parameter: str, threads: int) -> None:
        """All the steps."""
        self.call()


class Training(_Operation):
    """A training of the digits until 95 % of the others are right."""

    operation = "training to 95 %, digits"
    params: ClassVar = ["50 x 64-50-10 float32"]
