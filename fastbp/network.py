"""The book's networks: TwoLayerNet of chapters 4 and 5, MultiLayerNet of chapter 6.

``params`` is a plain dict of arrays, ``W1``, ``b1``, ``W2``, ...; it is the truth: changing an
array in place, or putting another in its place, changes the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arrays import nonnegative, positive_int
from ._network import ACTIVATIONS, Network

__all__ = ["ACTIVATIONS", "MultiLayerNet", "Network", "TwoLayerNet"]


class TwoLayerNet(Network):
    """The network of chapters 4 and 5: affine, activation, affine, softmax with loss.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        Positive.
    weight_init_std : float, default 0.01
        Standard deviation of the weights; the biases begin at 0.
    activation : {'relu', 'sigmoid'}
        Chapter 5 has ReLU, chapter 4 the sigmoid.
    dtype : float64 or float32
    seed : int, optional
        Without it the weights come from NumPy's global generator, as in the book.

    Raises
    ------
    TypeError, ValueError
        For arguments that are none of these; the message names the argument.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        activation: str = "relu",
        dtype: Any = np.float64,
        seed: int | None = None,
    ) -> None:
        sizes = (
            positive_int("TwoLayerNet", "input_size", input_size),
            positive_int("TwoLayerNet", "hidden_size", hidden_size),
            positive_int("TwoLayerNet", "output_size", output_size),
        )
        std = nonnegative("TwoLayerNet", "weight_init_std", weight_init_std)
        super().__init__(sizes, (std, std), activation=activation, dtype=dtype, seed=seed)


class MultiLayerNet(Network):
    """The network of chapter 6: any number of hidden layers, initial weights by rule, weight decay.

    Parameters
    ----------
    input_size : int
    hidden_size_list : sequence of int
        Widths of the hidden layers; may be empty.
    output_size : int
    activation : {'relu', 'sigmoid'}
    weight_init_std : float or str
        A standard deviation for all layers; or 'relu' or 'he' for ``sqrt(2 / D)``, or 'sigmoid' or
        'xavier' for ``sqrt(1 / D)``, D the number of the layer's inputs (section 6.2).
    weight_decay_lambda : float, default 0
        Adds ``lambda / 2 * sum(W**2)`` to the loss (section 6.4.2).
    dtype : float64 or float32
    seed : int, optional
        Without it the weights come from NumPy's global generator, as in the book.

    Raises
    ------
    TypeError, ValueError
        For arguments that are none of these; the message names the argument.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        *,
        dtype: Any = np.float64,
        seed: int | None = None,
    ) -> None:
        name = "MultiLayerNet"
        if isinstance(hidden_size_list, (str, bytes)) or not np.iterable(hidden_size_list):
            raise TypeError(
                f"{name}: hidden_size_list is {hidden_size_list!r}, expected a list of integers"
            )
        sizes = (
            positive_int(name, "input_size", input_size),
            *(
                positive_int(name, f"hidden_size_list[{i}]", H)
                for i, H in enumerate(hidden_size_list)
            ),
            positive_int(name, "output_size", output_size),
        )
        gain = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}
        if isinstance(weight_init_std, str):
            rule = weight_init_std.lower()
            if rule not in gain:
                raise ValueError(
                    f"{name}: weight_init_std is {weight_init_std!r}, "
                    f"expected a number or one of {list(gain)}"
                )
            stds = [(gain[rule] / D) ** 0.5 for D in sizes[:-1]]
        else:
            std = nonnegative(name, "weight_init_std", weight_init_std)
            stds = [std] * (len(sizes) - 1)
        super().__init__(
            sizes,
            stds,
            activation=activation.lower() if isinstance(activation, str) else activation,
            weight_decay_lambda=weight_decay_lambda,
            dtype=dtype,
            seed=seed,
        )
