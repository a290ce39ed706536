"""Seconds of single layers, softmax and the optimizers' updates, on one thread."""

from __future__ import annotations

from typing import ClassVar

from ._series import _Directions, _Operation, find, warm

SMALL, LARGE = "1 x 50 float32", "1000 x 50 float32"


class Relu(_Directions):
    """ReLU."""

    operation = "relu"
    params: ClassVar = [SMALL, LARGE, "1000 x 50 float64"]


class Sigmoid(_Directions):
    """The logistic function."""

    operation = "sigmoid"
    params: ClassVar = [SMALL, LARGE, "1000 x 50 float64"]


class SoftmaxLoss(_Directions):
    """Softmax with cross-entropy, of labels."""

    operation = "softmax loss"
    params: ClassVar = ["1 x 10 float32", LARGE, "1000 x 50 float64"]


class Affine(_Directions):
    """The matrix products of a layer, which are NumPy's, and what is around them."""

    operation = "affine"
    params: ClassVar = ["1 x 784-50 float32", "1000 x 784-50 float32", "1000 x 2-500 float32"]


class Softmax(_Operation):
    """Softmax alone."""

    operation = "softmax"
    params: ClassVar = [LARGE]


class Update:
    """An optimizer's update of a matrix."""

    version = "1"
    param_names: ClassVar = ["rule"]
    params: ClassVar = ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"]

    def setup(self, rule: str) -> None:
        """Build the call, and make it once."""
        self.call = warm(find(f"update {rule}", "784 x 50 float32"))

    def time_call(self, rule: str) -> None:
        """One update."""
        self.call()
