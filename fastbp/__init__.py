"""Backpropagation as *Deep Learning from Scratch* teaches it, with compiled kernels.

    import fastbp

    (x_train, t_train), (x_test, t_test) = fastbp.load_digits()
    network = fastbp.TwoLayerNet(64, 50, 10)
    history = fastbp.fit(network, x_train, t_train, validation_data=(x_test, t_test))

Importing fastbp is quick: a submodule is loaded when one of its names is first used, and with it
Numba, matplotlib and the rest only where they are needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives.
_HOMES = {
    "checkpoint": ("ModelError", "load_network", "save_network"),
    "checkpoints": ("CheckpointError", "Checkpoints"),
    "dataset": ("DatasetError", "load_digits", "load_mnist", "load_npz"),
    "functions": (
        "cross_entropy_error",
        "identity_function",
        "mean_squared_error",
        "relu",
        "relu_grad",
        "sigmoid",
        "sigmoid_grad",
        "softmax",
        "softmax_loss",
        "step_function",
        "sum_squared_error",
    ),
    "gradient": (
        "GradientCheck",
        "check_gradient",
        "gradient_descent",
        "numerical_diff",
        "numerical_gradient",
    ),
    "history": ("History",),
    "layers": ("AddLayer", "Affine", "MulLayer", "Relu", "Sigmoid", "SoftmaxWithLoss"),
    "network": ("MultiLayerNet", "Network", "TwoLayerNet"),
    "optimizer": ("SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"),
    "threads": ("get_num_threads", "set_num_threads"),
    "trainer": ("DivergedError", "Report", "Trainer", "TrainingInterrupted", "fit"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_SUBMODULES = {*_HOMES, "plot", "reference"}

__all__ = sorted(["__version__", *_HOME_OF])

if TYPE_CHECKING:
    from .checkpoint import ModelError as ModelError
    from .checkpoint import load_network as load_network
    from .checkpoint import save_network as save_network
    from .checkpoints import CheckpointError as CheckpointError
    from .checkpoints import Checkpoints as Checkpoints
    from .dataset import DatasetError as DatasetError
    from .dataset import load_digits as load_digits
    from .dataset import load_mnist as load_mnist
    from .dataset import load_npz as load_npz
    from .functions import cross_entropy_error as cross_entropy_error
    from .functions import identity_function as identity_function
    from .functions import mean_squared_error as mean_squared_error
    from .functions import relu as relu
    from .functions import relu_grad as relu_grad
    from .functions import sigmoid as sigmoid
    from .functions import sigmoid_grad as sigmoid_grad
    from .functions import softmax as softmax
    from .functions import softmax_loss as softmax_loss
    from .functions import step_function as step_function
    from .functions import sum_squared_error as sum_squared_error
    from .gradient import GradientCheck as GradientCheck
    from .gradient import check_gradient as check_gradient
    from .gradient import gradient_descent as gradient_descent
    from .gradient import numerical_diff as numerical_diff
    from .gradient import numerical_gradient as numerical_gradient
    from .history import History as History
    from .layers import AddLayer as AddLayer
    from .layers import Affine as Affine
    from .layers import MulLayer as MulLayer
    from .layers import Relu as Relu
    from .layers import Sigmoid as Sigmoid
    from .layers import SoftmaxWithLoss as SoftmaxWithLoss
    from .network import MultiLayerNet as MultiLayerNet
    from .network import Network as Network
    from .network import TwoLayerNet as TwoLayerNet
    from .optimizer import SGD as SGD
    from .optimizer import AdaGrad as AdaGrad
    from .optimizer import Adam as Adam
    from .optimizer import Momentum as Momentum
    from .optimizer import Nesterov as Nesterov
    from .optimizer import RMSprop as RMSprop
    from .threads import get_num_threads as get_num_threads
    from .threads import set_num_threads as set_num_threads
    from .trainer import DivergedError as DivergedError
    from .trainer import Report as Report
    from .trainer import Trainer as Trainer
    from .trainer import TrainingInterrupted as TrainingInterrupted
    from .trainer import fit as fit


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_SUBMODULES})
