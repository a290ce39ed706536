"""The gradient check (chapter 5), which tells whether backpropagation is right.

Once for the network of the package, once for one with a mistake of 0.1 % in a single gradient.
"""

from fastbp import TwoLayerNet, check_gradient, load_digits

(x_train, t_train), _ = load_digits()
x, t = x_train[:3], t_train[:3]
network = TwoLayerNet(input_size=64, hidden_size=50, output_size=10, seed=0)

right = check_gradient(network, x, t)
print(f"{right}\npassed: {right.passed}\n")


class Wrong(TwoLayerNet):
    """Forgets a thousandth of the gradient of W2."""

    def gradient(self, x, t):
        """Return the gradients, one of them a little wrong."""
        grads = super().gradient(x, t)
        grads["W2"] *= 0.999
        return grads


wrong = check_gradient(Wrong(64, 50, 10, seed=0), x, t)
print(f"{wrong}\npassed: {wrong.passed}")
