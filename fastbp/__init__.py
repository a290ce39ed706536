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
    from .checkpoint import *  # noqa: F403
    from .dataset import *  # noqa: F403
    from .functions import *  # noqa: F403
    from .gradient import *  # noqa: F403
    from .history import *  # noqa: F403
    from .layers import *  # noqa: F403
    from .network import *  # noqa: F403
    from .optimizer import *  # noqa: F403
    from .threads import *  # noqa: F403
    from .trainer import *  # noqa: F403


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
