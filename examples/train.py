"""Training (chapter 5), twice: the loop of the book with fastbp's layers, then ``fit``."""

import time

import numpy as np

from fastbp import SGD, TwoLayerNet, fit, load_digits

(x_train, t_train), (x_test, t_test) = load_digits()
iterations, batch_size, learning_rate = 3000, 20, 0.2

# The book's loop, unchanged but for its imports.
network = TwoLayerNet(input_size=64, hidden_size=50, output_size=10, weight_init_std=0.1, seed=0)
rng = np.random.default_rng(0)
begin = time.perf_counter()
for _ in range(iterations):
    batch_mask = rng.choice(len(x_train), batch_size)
    grad = network.gradient(x_train[batch_mask], t_train[batch_mask])
    for key in network.params:
        network.params[key] -= learning_rate * grad[key]
accuracy = network.accuracy(x_test, t_test)
print(f"the book's loop: {accuracy:.4f} in {time.perf_counter() - begin:.2f} s")

# The same with `fit`.
network = TwoLayerNet(input_size=64, hidden_size=50, output_size=10, weight_init_std=0.1, seed=0)
history = fit(
    network,
    x_train,
    t_train,
    optimizer=SGD(lr=learning_rate),
    batch_size=batch_size,
    iterations=iterations,
    validation_data=(x_test, t_test),
    seed=0,
)
print(f"fit: {history}")
