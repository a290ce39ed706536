"""Operations of single layers in tinygrad, on the CPU, each captured once by its ``TinyJit``."""

from __future__ import annotations

from typing import Any

from .with_numpy import Call, LayerData

# The first call computes, the second captures; from then on the captured kernels are replayed.
CAPTURE_CALLS = 2


def layer(name: str, direction: str, data: LayerData) -> Call:
    """Return a call of a layer's forward, its backward, or both."""
    from tinygrad import Tensor, TinyJit

    inputs = [data.x, data.W, data.b] if name == "affine" else [data.a]
    tensors = [_tensor(array) for array in inputs]
    targets = _tensor(data.rows if "one-hot" in name else data.t)
    dout = _tensor(data.dout)
    is_loss = name.startswith("softmax")

    def forward(*inputs: Any) -> Any:
        if name == "affine":
            x, W, b = inputs
            return x @ W + b
        if is_loss:
            return inputs[0].cross_entropy(targets)
        return getattr(inputs[0], name)()

    def gradients(*inputs: Any) -> Any:
        out = forward(*inputs)
        found = out.gradient(*inputs, **({} if is_loss else {"gradient": dout}))
        Tensor.realize(*found)
        return tuple(found) if len(found) > 1 else found[0]

    # TinyJit wants its tensors as arguments; `gradient` differentiates with respect to them.
    captured = TinyJit(
        (lambda *inputs: forward(*inputs).realize()) if direction == "forward" else gradients
    )
    return _finished(captured, tensors)


def softmax(data: LayerData) -> Call:
    """Return a call of softmax."""
    from tinygrad import TinyJit

    return _finished(TinyJit(lambda a: a.softmax().realize()), [_tensor(data.a)])


def _tensor(array: Any) -> Any:
    from tinygrad import Tensor

    return Tensor(array, device="CPU").realize()


def _finished(function: Any, tensors: list[Any]) -> Call:
    """Return a call that waits for the result."""
    from tinygrad import Device

    device = Device["CPU"]

    def call() -> Any:
        result = function(*tensors)
        device.synchronize()
        return result

    for _ in range(CAPTURE_CALLS):
        call()
    return call
