"""The compiled loop as kernels: programs over tables, on nets so small that Python can run them.

What networks compute in it, and on how many threads, is in ``test_engine.py``.
"""

import numpy as np
import pytest

from fastbp import MultiLayerNet, fit, reference
from fastbp import optimizer as optimizers

SIZES = {"one layer": (5, 3), "two": (5, 7, 3), "three": (5, 7, 4, 3)}
every_net = pytest.mark.parametrize("name", SIZES)
KINDS = ("floats", "bytes", "one-hot")


def build(sizes, activation="relu", decay=0.0, dtype=np.float64):
    D, *hidden, C = sizes
    net = MultiLayerNet(D, hidden, C, activation, 0.7, decay, dtype=dtype, seed=0)
    for key, p in net.params.items():
        if key.startswith("b"):
            p[...] = np.linspace(-0.3, 0.4, p.size)
    return net


def examples(kind, N=17):
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(N, 5)), rng.integers(0, 3, N)
    if kind == "bytes":
        x = rng.integers(0, 4, (N, 5)).astype(np.uint8)
    return x, np.eye(3)[t] if kind == "one-hot" else t


def book_loss(params, x, t, activation, decay):
    """Return loss and gradients as the book computes them, in float64."""
    params = {key: p.astype(np.float64) for key, p in params.items()}
    L, hidden = len(params) // 2, [x.astype(np.float64)]
    for i in range(1, L + 1):
        a = hidden[-1] @ params[f"W{i}"] + params[f"b{i}"]
        if i < L:
            a = np.maximum(a, 0) if activation == "relu" else 1 / (1 + np.exp(-a))
        hidden.append(a)
    y = reference.softmax(hidden.pop())
    t = np.eye(y.shape[1])[t] if t.ndim == 1 else t
    loss = -np.sum(t * np.log(y)) / len(x)
    loss += 0.5 * decay * sum(np.sum(params[f"W{i}"] ** 2) for i in range(1, L + 1))
    dout, grads = (y - t) / len(x), {}
    for i in range(L, 0, -1):
        h = hidden[i - 1]
        grads[f"W{i}"] = h.T @ dout + decay * params[f"W{i}"]
        grads[f"b{i}"] = dout.sum(axis=0)
        dout = dout @ params[f"W{i}"].T * ((h > 0) if activation == "relu" else h * (1 - h))
    return loss, grads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("decay", [0.0, 0.3], ids=["no decay", "decay"])
@every_net
def test_a_gradient_is_the_books(name, decay, activation, kind):
    net = build(SIZES[name], activation, decay)
    x, t = examples(kind)
    loss, grads = net.loss_and_gradient(x, t)
    expected_loss, expected = book_loss(net.params, x, t, activation, decay)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for key, g in expected.items():
        np.testing.assert_allclose(grads[key], g, rtol=0, atol=1e-12 * np.abs(g).max())


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
@pytest.mark.parametrize("decay", [0.0, 0.3], ids=["no decay", "decay"])
@pytest.mark.parametrize("threads", [1, 2])
def test_training_is_the_books(threads, decay, name):
    net = build(SIZES["two"], decay=decay)
    params = {key: p.copy() for key, p in net.params.items()}
    x, t = examples("floats")
    optimizer = getattr(reference, name)(lr=0.05)
    losses = []
    for _ in range(4):
        loss, grads = book_loss(params, x, t, "relu", decay)
        losses.append(loss)
        optimizer.update(params, grads)
    ours = getattr(optimizers, name)(lr=0.05)
    history = fit(net, x, t, optimizer=ours, batch_size=17, epochs=4, threads=threads)
    np.testing.assert_allclose(history.train_loss_list, losses, rtol=1e-11)
    for key, p in params.items():
        np.testing.assert_allclose(net.params[key], p, rtol=0, atol=1e-11 * np.abs(p).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_and_prediction_are_the_books(kind, dtype):
    net = build(SIZES["two"], dtype=dtype)
    x, t = examples(kind, 270)
    loss, accuracy = net.evaluate(x, t)
    expected, _ = book_loss(net.params, x.astype(dtype), t, "relu", 0.0)
    labels = t.argmax(axis=1) if t.ndim == 2 else t
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-5)
    assert accuracy == np.mean(net.predict(x).argmax(axis=1) == labels)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.2])
def test_evaluation_and_prediction_skip_zeros_as_they_meet_them(density):
    rng = np.random.default_rng(0)
    net = MultiLayerNet(300, [33], 3, "relu", 0.3, seed=0)  # 300: no whole number of masks
    x = rng.normal(size=(260, 300)) * (rng.random((260, 300)) < density)
    t = rng.integers(0, 3, 260)
    loss, accuracy = net.evaluate(x, t)
    expected, _ = book_loss(net.params, x, t, "relu", 0.0)
    assert loss == pytest.approx(expected, rel=1e-12)
    logits = np.maximum(x @ net.params["W1"] + net.params["b1"], 0) @ net.params["W2"]
    np.testing.assert_allclose(net.predict(x), logits + net.params["b2"], rtol=0, atol=1e-12)
    assert accuracy == np.mean(net.predict(x).argmax(axis=1) == t)


# --- a first layer that is divided by its inputs -------------------------------------------------


def wide(density=1.0, D=150, H=40):
    """Return a network with over 32 kB of weights in front, and examples with or without zeros."""
    rng = np.random.default_rng(0)
    net = MultiLayerNet(D, [H], 3, "relu", 0.3, 0.2, seed=0)
    x = rng.normal(size=(20, D)) * (rng.random((20, D)) < density)
    return net, x, rng.integers(0, 3, 20)


# A third of numbers is enough to go by columns in 20 examples, and a tenth is not.
@pytest.mark.parametrize("density", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Adam"])
@pytest.mark.parametrize("H", [40, 41, 42])  # one or two columns behind whole registers
def test_training_by_halves_of_the_inputs_is_the_books(H, name, density):
    net, x, t = wide(density, H=H)
    params = {key: p.copy() for key, p in net.params.items()}
    optimizer, losses = getattr(reference, name)(lr=0.05), []
    for _ in range(3):
        loss, grads = book_loss(params, x, t, "relu", 0.2)
        losses.append(loss)
        optimizer.update(params, grads)
    ours = getattr(optimizers, name)(lr=0.05)
    validation = x, t
    history = fit(net, x, t, optimizer=ours, batch_size=20, epochs=3, validation_data=validation)
    np.testing.assert_allclose(history.train_loss_list, losses, rtol=1e-11)
    assert history.test_loss_list[0] == pytest.approx(losses[0], rel=1e-11)
    for key, p in params.items():
        np.testing.assert_allclose(net.params[key], p, rtol=0, atol=1e-10 * np.abs(p).max())


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_one_or_two_columns_behind_whole_registers_of_a_second_layer(name):
    rng = np.random.default_rng(0)
    net = MultiLayerNet(9, [70, 18], 3, "relu", 0.3, 0.2, seed=0)
    x, t = rng.normal(size=(20, 9)), rng.integers(0, 3, 20)
    params = {key: p.copy() for key, p in net.params.items()}
    optimizer = getattr(reference, name)(lr=0.05)
    for _ in range(3):
        _, grads = book_loss(params, x, t, "relu", 0.2)
        optimizer.update(params, grads)
    fit(net, x, t, optimizer=getattr(optimizers, name)(lr=0.05), batch_size=20, epochs=3)
    for key, p in params.items():
        np.testing.assert_allclose(net.params[key], p, rtol=0, atol=1e-10 * np.abs(p).max())
    _, grads = net.loss_and_gradient(x, t)
    _, expected = book_loss(net.params, x, t, "relu", 0.2)
    for key, g in expected.items():
        np.testing.assert_allclose(grads[key], g, rtol=0, atol=1e-12 * np.abs(g).max())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_of_more_than_is_fetched_in_advance_is_the_books(threads):
    rng = np.random.default_rng(0)
    net = MultiLayerNet(1200, [8], 3, "relu", 0.1, seed=0)
    x, t = rng.normal(size=(300, 1200)), rng.integers(0, 3, 300)
    params = {key: p.copy() for key, p in net.params.items()}
    optimizer, losses = reference.SGD(lr=0.05), []
    for _ in range(2):
        loss, grads = book_loss(params, x, t, "relu", 0.0)
        losses.append(loss)
        optimizer.update(params, grads)
    ours = optimizers.SGD(lr=0.05)
    history = fit(net, x, t, optimizer=ours, batch_size=300, epochs=2, threads=threads)
    np.testing.assert_allclose(history.train_loss_list, losses, rtol=1e-11)
    for key, p in params.items():
        np.testing.assert_allclose(net.params[key], p, rtol=0, atol=1e-11 * np.abs(p).max())


@pytest.mark.parametrize("D", [150, 256])
@pytest.mark.parametrize("H", [40, 41])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_the_gradient_by_halves_of_the_inputs_is_the_books(density, H, D):
    net, x, t = wide(density, D, H)
    loss, grads = net.loss_and_gradient(x, t)
    expected_loss, expected = book_loss(net.params, x, t, "relu", 0.2)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for key, g in expected.items():
        np.testing.assert_allclose(grads[key], g, rtol=0, atol=1e-12 * np.abs(g).max())


def test_the_books_eps_is_added_inside_the_logarithm():
    net, x, t = wide()
    exact = net.evaluate(x, t)[0]
    net.last_layer.eps = 0.5
    y = reference.softmax(net.predict(x))
    expected = -np.mean(np.log(y[np.arange(20), t] + 0.5)) + net.decay()
    for targets in t, np.eye(3)[t] * 0.75 + 0.25 / 3:
        loss = net.evaluate(x, targets)[0]
        assert loss != pytest.approx(exact, rel=1e-3)
        if targets is t:
            assert loss == pytest.approx(expected, rel=1e-12)
