"""Every kernel, called directly: its numbers against the reference, and the law of kernels.

A kernel overwrites its outputs whole, writes nothing else, and returns None or a number.  Each is
called with outputs full of NaN (masks full of ones or zeros) that lie between guards.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from closeness import assert_close

import fastbp.kernels
from fastbp import reference
from fastbp.kernels import (
    affine,
    arguments,
    compress,
    exchange,
    gemm,
    jit,
    numerical,
    relu,
    rule,
    scan,
    shell,
    sigmoid,
    softmax_loss,
    sparse_layer,
    sparse_once,
    step,
    update,
)
from fastbp.kernels.simd import MASK_BITS

SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
BIG = (33, 65) if jit.JIT_DISABLED else (513, 257)
SHAPES = [*((5, n) for n in SIZES), *((n, 3) for n in (2, 3, 4, 6, 7, 8)), (0, 3), (1, 1), BIG]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

GUARDS, GUARD = 16, 77


@dataclass
class Call:
    """A call of a kernel with the answers, in the order of the arguments."""

    kernel: Callable[..., Any]
    outputs: list[np.ndarray] = field(default_factory=list)  # what must come out
    updated: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # before and after
    inputs: list[np.ndarray] = field(default_factory=list)
    scalars: tuple[Any, ...] = ()
    returns: float | None = None


# --- the table: a call of each kernel for (N, C), in a type --------------------------------------


def bias_forward(rng, shape, T):
    out, b = rng.normal(size=shape).astype(T), rng.normal(size=shape[1]).astype(T)
    return Call(affine.bias_forward, updated=[(out, out.astype(float) + b)], inputs=[b])


def bias_backward(rng, shape, T):
    dout = rng.normal(size=shape).astype(T)
    return Call(affine.bias_backward, outputs=[dout.astype(float).sum(axis=0)], inputs=[dout])


def relu_forward(rng, shape, T):
    x = rng.normal(size=shape).astype(T)
    oracle = reference.Relu()
    return Call(relu.relu_forward, outputs=[oracle.forward(x), as_bits(oracle.mask)], inputs=[x])


def relu_backward(rng, shape, T):
    dout, mask = rng.normal(size=shape).astype(T), rng.random(shape) < 0.5
    outputs, inputs = [np.where(mask, 0, dout)], [as_bits(mask), dout]
    return Call(relu.relu_backward, outputs=outputs, inputs=inputs)


def as_bits(mask):
    """Return an array of bool as a row of masks: the lowest bit of the first is the first one."""
    numbers = np.zeros((1, -(-mask.size // MASK_BITS)), np.int64)
    for i, masked in enumerate(mask.ravel().tolist()):
        bit = np.uint64(masked << i % MASK_BITS)
        numbers[0, i // MASK_BITS] |= bit.astype(np.int64)
    return numbers


def sigmoid_forward(rng, shape, T):
    x = rng.normal(0, 5, shape).astype(T)
    return Call(sigmoid.sigmoid_forward, outputs=[reference.sigmoid(x.astype(float))], inputs=[x])


def sigmoid_backward(rng, shape, T):
    out, dout = rng.random(shape).astype(T), rng.normal(size=shape).astype(T)
    dx = dout.astype(float) * (1 - out.astype(float)) * out
    return Call(sigmoid.sigmoid_backward, outputs=[dx], inputs=[out, dout])


def softmax_forward(rng, shape, T):
    a = rng.normal(0, 5, shape).astype(T)
    y = reference.softmax(a.astype(float))
    return Call(softmax_loss.softmax_forward, outputs=[y], inputs=[a])


def log_softmax(a):
    a = a.astype(float) - a.max(axis=1, keepdims=True)
    return a - np.log(np.exp(a).sum(axis=1, keepdims=True))


def softmax_loss_forward(rng, shape, T):
    a, t = rng.normal(0, 5, shape).astype(T), rng.integers(shape[1], size=shape[0])
    log_y = log_softmax(a)
    loss = -log_y[np.arange(len(t)), t].sum()
    return Call(softmax_loss.softmax_loss_forward, [np.exp(log_y)], inputs=[a, t], returns=loss)


def targets(rng, shape, T):
    t = rng.random(shape) + 0.01
    return (t / t.sum(axis=1, keepdims=True)).astype(T)


def softmax_loss_rows_forward(rng, shape, T):
    a, t = rng.normal(0, 5, shape).astype(T), targets(rng, shape, T)
    log_y = log_softmax(a)
    return Call(
        softmax_loss.softmax_loss_rows_forward,
        outputs=[np.exp(log_y)],
        inputs=[a, t],
        returns=-(t * log_y).sum(),
    )


def softmax_loss_backward(rng, shape, T):
    y, t = targets(rng, shape, T), rng.integers(shape[1], size=shape[0])
    dx = 0.25 * (y.astype(float) - np.eye(shape[1])[t])
    return Call(softmax_loss.softmax_loss_backward, [dx], inputs=[y, t], scalars=(0.25,))


def softmax_loss_rows_backward(rng, shape, T):
    y, t = targets(rng, shape, T), 3 * targets(rng, shape, T)  # any weight of a row is respected
    dx = 0.25 * (y.astype(float) * t.sum(axis=1, keepdims=True) - t)
    return Call(softmax_loss.softmax_loss_rows_backward, [dx], inputs=[y, t], scalars=(0.25,))


def optimizer_step(kernel, oracle, slots, **scalars):
    """Return the table's function for one step of an optimizer with a past."""

    def build(rng, shape, T):
        size = shape[0] * shape[1]
        grad, param = rng.normal(size=(2, size)).astype(T)
        states = [rng.random(size).astype(T) for _ in slots]
        params = {"p": param.astype(float)}
        for slot, state in zip(slots, states, strict=True):
            setattr(oracle, slot, {"p": state.astype(float)})
        oracle.iter = 0
        oracle.update(params, {"p": grad.astype(float)})
        after = [params["p"], *(getattr(oracle, slot)["p"] for slot in slots)]
        return Call(
            kernel,
            updated=list(zip([param, *states], after, strict=True)),
            inputs=[grad],
            scalars=tuple(T(value) for value in scalars.values()),
        )

    return build


ADAM_RATE = 0.1 * np.sqrt(1 - 0.999) / (1 - 0.9)  # of the first step

CALLS = {
    "bias_forward": bias_forward,
    "bias_backward": bias_backward,
    "relu_forward": relu_forward,
    "relu_backward": relu_backward,
    "sigmoid_forward": sigmoid_forward,
    "sigmoid_backward": sigmoid_backward,
    "softmax_forward": softmax_forward,
    "softmax_loss_forward": softmax_loss_forward,
    "softmax_loss_rows_forward": softmax_loss_rows_forward,
    "softmax_loss_backward": softmax_loss_backward,
    "softmax_loss_rows_backward": softmax_loss_rows_backward,
    "sgd_update": optimizer_step(update.sgd_update, reference.SGD(0.1), [], lr=0.1),
    "momentum_update": optimizer_step(
        update.momentum_update, reference.Momentum(0.1, 0.9), ["v"], lr=0.1, momentum=0.9
    ),
    "nesterov_update": optimizer_step(
        update.nesterov_update, reference.Nesterov(0.1, 0.9), ["v"], lr=0.1, momentum=0.9
    ),
    "adagrad_update": optimizer_step(
        update.adagrad_update, reference.AdaGrad(0.1), ["h"], lr=0.1, eps=1e-7
    ),
    "rmsprop_update": optimizer_step(
        update.rmsprop_update, reference.RMSprop(0.1, 0.9), ["h"], lr=0.1, decay_rate=0.9, eps=1e-7
    ),
    "adam_update": optimizer_step(
        update.adam_update,
        reference.Adam(0.1, 0.9, 0.999),
        ["m", "v"],
        lr_t=ADAM_RATE,
        beta1=0.9,
        beta2=0.999,
        eps=1e-7,
    ),
}
by_kernel = pytest.mark.parametrize("name", CALLS)


# --- running a call ------------------------------------------------------------------------------


def guarded(values, dtype):
    """Return a copy of the values between guards, and the buffer with both."""
    buffer = np.full(values.size + 2 * GUARDS, GUARD, dtype)
    array = buffer[GUARDS : GUARDS + values.size].reshape(values.shape)
    array[...] = values
    return array, buffer


@dataclass
class Outcome:
    call: Call
    outputs: list[np.ndarray]
    updated: list[np.ndarray]
    inputs: list[np.ndarray]
    buffers: list[np.ndarray]
    returned: Any


def run(name, shape, dtype, fill=np.nan, mask_fill=-1):
    """Call a kernel of the table."""
    call = CALLS[name](np.random.default_rng(0), shape, dtype)
    outputs = [
        guarded(np.full(o.shape, mask_fill), o.dtype)
        if o.dtype == np.int64
        else guarded(np.full(o.shape, fill), dtype)
        for o in call.outputs
    ]
    updated = [guarded(before, dtype) for before, _ in call.updated]
    inputs = [guarded(x, x.dtype) for x in call.inputs]
    pairs = outputs + updated + inputs
    returned = call.kernel(*(array for array, _ in pairs), *call.scalars)
    arrays = ([array for array, _ in part] for part in (outputs, updated, inputs))
    return Outcome(call, *arrays, [buffer for _, buffer in pairs], returned)


@by_dtype
@by_shape
@by_kernel
def test_a_kernel_computes_what_the_reference_says(name, shape, dtype):
    outcome = run(name, shape, dtype)
    for actual, expected in zip(outcome.outputs, outcome.call.outputs, strict=True):
        assert_close(actual, expected)
    for actual, (_, expected) in zip(outcome.updated, outcome.call.updated, strict=True):
        assert_close(actual, expected)


@by_dtype
@by_shape
@by_kernel
def test_a_kernel_returns_none_or_the_loss(name, shape, dtype):
    outcome = run(name, shape, dtype)
    if outcome.call.returns is None:
        assert outcome.returned is None
    else:
        tolerance = 1e-12 if dtype == np.float64 else 2e-6
        assert outcome.returned == pytest.approx(outcome.call.returns, rel=tolerance, abs=1e-7)


@by_dtype
@by_shape
@by_kernel
def test_a_kernel_does_not_rely_on_what_its_outputs_hold(name, shape, dtype):
    outcome = run(name, shape, dtype)
    again = run(name, shape, dtype, fill=-1e30, mask_fill=0)
    for one, other in zip(outcome.outputs, again.outputs, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@by_dtype
@by_shape
@by_kernel
def test_a_kernel_leaves_its_inputs_alone(name, shape, dtype):
    outcome = run(name, shape, dtype)
    for actual, given in zip(outcome.inputs, outcome.call.inputs, strict=True):
        assert actual.tobytes() == given.tobytes()


@by_dtype
@by_shape
@by_kernel
def test_a_kernel_writes_nothing_beside_its_arrays(name, shape, dtype):
    for buffer in run(name, shape, dtype).buffers:
        guards = np.concatenate([buffer[:GUARDS], buffer[len(buffer) - GUARDS :]])
        np.testing.assert_array_equal(guards, np.full(2 * GUARDS, GUARD, buffer.dtype))


@pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")
def test_every_kernel_is_in_the_table():
    for module in pkgutil.iter_modules(fastbp.kernels.__path__):
        importlib.import_module(f"fastbp.kernels.{module.name}")
    files = scan, numerical, gemm, exchange, shell, compress, rule, arguments, step
    files += sparse_layer, sparse_once
    elsewhere = {m.__name__ for m in files}  # in test files of their own
    names = {kernel.__name__ for kernel, *_ in jit.KERNELS if kernel.__module__ not in elsewhere}
    assert names == set(CALLS)


# --- single ideas --------------------------------------------------------------------------------


@by_dtype
def test_relu_forward_masks_zeros_and_lets_nan_pass(dtype):
    special = np.array([[0, -0.0, np.nan, np.inf, -np.inf, 1e-45]], dtype)
    for before in (0, 64 - 3, 64, 128 + 5):  # among whole registers, at their end, behind them
        x = np.concatenate([np.ones((1, before), dtype), special], axis=1)
        out, mask = np.full_like(x, np.nan), np.zeros((1, -(-x.size // MASK_BITS)), np.int64)
        relu.relu_forward(out, mask, x)
        masked = [False] * before + [True, True, False, False, True, x[0, -1] == 0]
        np.testing.assert_array_equal(mask, as_bits(np.array(masked)))
        np.testing.assert_array_equal(out, np.where(masked, 0, x))
        assert not np.signbit(out[~np.isnan(out)]).any()


@by_dtype
def test_relu_backward_selects_and_does_not_multiply(dtype):
    dout = np.tile(np.array([[np.inf, np.nan, np.inf, np.nan]], dtype), 17)  # 64, and 4 behind
    mask, dx = np.tile([True, True, False, False], 17), np.full_like(dout, 7)
    relu.relu_backward(dx, as_bits(mask), dout)
    np.testing.assert_array_equal(dx, np.tile([[0, 0, np.inf, np.nan]], 17))


@by_dtype
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 1000])
def test_each_number_of_relu_has_a_bit_of_its_own(size, dtype):
    for positive in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        x = np.full((1, size), -1, dtype)
        x[0, positive] = 3
        (out, around), (mask, around_mask) = guarded(x, dtype), guarded(as_bits(x > 0), np.int64)
        relu.relu_forward(out, mask, x)
        np.testing.assert_array_equal(mask, as_bits(x <= 0))
        np.testing.assert_array_equal(out, np.maximum(x, 0))
        relu.relu_backward(out, mask, x + 5)
        np.testing.assert_array_equal(out, np.where(x > 0, 8, 0))
        for buffer in around, around_mask:
            assert (buffer[:GUARDS] == GUARD).all()
            assert (buffer[-GUARDS:] == GUARD).all()


@by_dtype
def test_updates_do_nothing_where_gradient_and_past_are_zero(dtype):
    param, v = np.array([1, -2, np.inf], dtype), np.zeros(3, dtype)
    update.momentum_update(param, v, np.zeros(3, dtype), dtype(0.1), dtype(0.9))
    np.testing.assert_array_equal(param, [1, -2, np.inf])


@by_dtype
@pytest.mark.parametrize("kernel", [update.adagrad_update, update.rmsprop_update])
def test_a_gradient_of_zero_is_not_divided_by_zero(kernel, dtype):
    param, h = np.ones(3, dtype), np.zeros(3, dtype)
    scalars = (0.1, 1e-7) if kernel is update.adagrad_update else (0.1, 0.9, 1e-7)
    kernel(param, h, np.zeros(3, dtype), *map(dtype, scalars))
    np.testing.assert_array_equal(param, np.ones(3))
