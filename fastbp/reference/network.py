"""TwoLayerNet of chapter 5 in plain NumPy."""

from __future__ import annotations

import numpy as np

from .functions import Array
from .gradient import numerical_gradient
from .layers import Affine, Relu, Sigmoid, SoftmaxWithLoss


class TwoLayerNet:
    """Affine, activation, affine, softmax with loss; weights from NumPy's global generator."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        activation: str = "relu",
        eps: float = 0.0,
    ) -> None:
        self.params = {
            "W1": weight_init_std * np.random.randn(input_size, hidden_size),
            "b1": np.zeros(hidden_size),
            "W2": weight_init_std * np.random.randn(hidden_size, output_size),
            "b2": np.zeros(output_size),
        }
        hidden = Relu() if activation == "relu" else Sigmoid()
        self.layers: dict[str, Affine | Relu | Sigmoid] = {
            "Affine1": Affine(self.params["W1"], self.params["b1"]),
            type(hidden).__name__ + "1": hidden,
            "Affine2": Affine(self.params["W2"], self.params["b2"]),
        }
        self.lastLayer = SoftmaxWithLoss(eps)

    def predict(self, x: Array) -> Array:
        """Return the logits of x, shape (N, output_size)."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> float:
        """Return the loss of the batch."""
        return self.lastLayer.forward(self.predict(x), t)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of rows whose largest logit is at the target."""
        y = np.argmax(self.predict(x), axis=1)
        if t.ndim != 1:
            t = np.argmax(t, axis=1)
        return float(np.sum(y == t) / x.shape[0])

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Gradients of the loss by central differences."""
        return {
            key: numerical_gradient(lambda _: self.loss(x, t), value)
            for key, value in self.params.items()
        }

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Gradients of the loss by backpropagation."""
        self.loss(x, t)
        dout = self.lastLayer.backward(1)
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        first, second = self.layers["Affine1"], self.layers["Affine2"]
        assert isinstance(first, Affine)  # noqa: S101 - tells the type checker
        assert isinstance(second, Affine)  # noqa: S101
        return {"W1": first.dW, "b1": first.db, "W2": second.dW, "b2": second.db}
