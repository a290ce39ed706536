"""What reaches the compiled loop from users' attributes: types, layers, parameters, interrupts."""

import numpy as np
import pytest

import fastbp
from fastbp import MultiLayerNet, SoftmaxWithLoss, fit
from fastbp.layers import Relu, Sigmoid


def examples(N=120, D=20, C=3):
    rng = np.random.default_rng(0)
    return rng.random((N, D)) + 0.1, rng.integers(0, C, N)


def net(**options):
    return MultiLayerNet(20, [15], 3, seed=1, **options)


def losses(optimizer, network=None, **options):
    options = {"batch_size": 30, "iterations": 12, "seed": 0, **options}
    return fit(network or net(), *examples(), optimizer=optimizer, **options).train_loss_list


@pytest.mark.parametrize("number", [1, np.float32(1), np.int64(1), np.float64(1), np.float16(1)])
def test_a_learning_rate_of_any_type_is_the_number_it_is(number):
    optimizer = fastbp.SGD(0.1)
    optimizer.lr = number
    assert losses(optimizer) == losses(fastbp.SGD(1.0))


def test_other_numbers_of_any_type():
    momentum = fastbp.Momentum(0.1)
    momentum.momentum = np.float32(0.5)
    assert losses(momentum) == losses(fastbp.Momentum(0.1, momentum=0.5))
    adam = fastbp.Adam(0.01)
    adam.beta1, adam.beta2 = 0, np.float32(0.5)
    assert losses(adam) == losses(fastbp.Adam(0.01, beta1=0.0, beta2=0.5))
    decay = net()
    decay.weight_decay_lambda = 1
    assert losses(fastbp.SGD(0.1), decay) == losses(fastbp.SGD(0.1), net(weight_decay_lambda=1.0))


def test_an_integer_eps_of_the_loss():
    network, x_t = net(), examples()
    expected = network.evaluate(*x_t)
    network.last_layer = SoftmaxWithLoss(eps=0)
    assert network.evaluate(*x_t) == expected


def test_callbacks_may_change_values_but_not_layers():
    def halve(report):
        for p in report.network.params.values():
            p *= 0.5

    network = net()
    fit(network, *examples(), epochs=1, callbacks=[halve])
    before = {key: p.copy() for key, p in network.params.items()}
    assert before["W1"].any()

    def replace(report):
        report.network.layers["Relu1"] = Sigmoid()

    with pytest.raises(RuntimeError, match="a callback changed the layers"):
        fit(network, *examples(), epochs=1, callbacks=[replace])


@pytest.mark.parametrize(
    "other", [None, "W1", np.zeros((3, 3)), np.zeros(0)], ids=["None", "text", "matrix", "empty"]
)
def test_a_callback_cannot_put_something_else_in_the_place_of_a_parameter(other):
    def replace(report):
        report.network.params["W1"] = other

    with pytest.raises(RuntimeError, match="the shapes of the parameters"):
        fit(net(), *examples(), epochs=1, callbacks=[replace])


def test_what_a_callback_changed_stays_when_it_is_interrupted():
    def interrupt(report):
        report.network.params["W1"][...] = 7.0
        raise KeyboardInterrupt

    network = net()
    with pytest.raises(fastbp.TrainingInterrupted):
        fit(network, *examples(), epochs=1, callbacks=[interrupt])
    assert (network.params["W1"] == 7).all()


def test_steps_are_kept_whatever_ends_the_training(monkeypatch):
    from fastbp.steps import CompiledSteps

    run, calls = CompiledSteps.run, []

    def stop_at_the_second(self, rows, begins):
        calls.append(len(begins) - 1)
        if len(calls) == 2:
            raise SystemExit
        return run(self, rows, begins)

    monkeypatch.setattr(CompiledSteps, "run", stop_at_the_second)
    network, adam = net(), fastbp.Adam()
    with pytest.raises(SystemExit):
        fit(network, *examples(), optimizer=adam, batch_size=10, epochs=3, seed=0)
    assert adam.iter == calls[0]
    assert adam.m["W1"].any()
    assert not np.array_equal(network.params["W1"], net().params["W1"])


def test_a_training_recovers_from_parameters_that_were_not_finite():
    good = {key: p.copy() for key, p in net().params.items()}
    reports = []

    def break_and_mend(report):
        reports.append(report)
        for key, p in report.network.params.items():
            p[...] = np.nan if len(reports) == 1 else good[key]

    history = fit(
        net(), *examples(), optimizer=fastbp.SGD(0.01), epochs=4, seed=0,
        allow_nonfinite=True, callbacks=[break_and_mend],
    )  # fmt: skip
    assert np.isnan(history.train_loss_list[0])
    assert np.isfinite(history.train_loss_list[-1])


def test_tied_weights_go_layer_by_layer():
    network = MultiLayerNet(20, [20], 20, seed=1)
    network.params["W2"] = network.params["W1"]
    assert not network.is_standard()


def test_parameters_of_another_byte_order_go_layer_by_layer():
    network = net()
    x, t = examples()
    expected = network.gradient(x, t)
    network.params = {key: p.astype(">f8") for key, p in network.params.items()}
    for key, grad in network.gradient(x, t).items():
        np.testing.assert_allclose(grad, expected[key], rtol=1e-10, atol=1e-12)


def test_a_layer_whose_forward_was_wrapped_is_called():
    network, calls = net(), []
    layer = network.layers["Relu1"]
    layer.forward = lambda x: calls.append(1) or Relu.forward(layer, x)
    network.gradient(*examples())
    assert calls


def test_backward_after_a_compiled_call_is_an_error_not_an_older_gradient():
    x, t = examples(300)
    for call in (lambda n: n.predict(x), lambda n: n.gradient(x, t)):
        network = net()
        network.loss(x, t)
        call(network)
        with pytest.raises(RuntimeError, match="call forward first"):
            network.layers["Affine2"].backward(np.ones((300, 3)))


def test_logits_that_are_nan_count_as_class_0_as_for_argmax():
    x, _ = examples()
    x[:] = np.nan
    network = net()
    assert network.accuracy(x, np.zeros(len(x), int)) == 1.0
    assert network.accuracy(x, np.full(len(x), 2)) == 0.0


def test_infinite_losses_are_trained_through_when_allowed():
    x, t = examples()
    x[0] = np.inf
    history = fit(net(), x, t, epochs=2, allow_nonfinite=True, seed=0)
    assert len(history) == 4


def test_read_only_bytes_train_like_bytes():
    x = np.random.default_rng(0).integers(1, 255, (90, 20)).astype(np.uint8)
    locked = np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape)
    t = np.arange(90) % 3
    runs = [
        fit(net(dtype="float32"), images, t, optimizer=fastbp.SGD(1e-4), epochs=2, seed=0)
        for images in (x, locked)
    ]
    assert runs[0].train_loss_list == runs[1].train_loss_list


def test_memory_of_a_large_gradient_is_not_kept():
    network = MultiLayerNet(784, [50], 10, seed=1)
    network.gradient(np.ones((100, 784)), np.zeros(100, int))
    assert len(network._engines) == 1
    network.gradient(np.ones((9000, 784)), np.zeros(9000, int))
    assert len(network._engines) == 0
