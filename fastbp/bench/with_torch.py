"""Operations of single layers in PyTorch, eager or compiled.

A backward pass is that of the recorded graph, which is kept, as a layer of the book keeps what its
backward pass needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .with_numpy import DEFAULT_RATE, RATES, Call, LayerData


def layer(name: str, direction: str, data: LayerData, threads: int, compiled: bool) -> Call:
    """Return a call of a layer's forward, its backward, or both."""
    torch = _torch(threads)
    function, inputs, others, dout = _parts(torch, name, data)
    if compiled:
        # The graph is used again and again: its buffers must not be given away.
        torch._functorch.config.donated_buffer = False
        function = torch.compile(function)
    leaves = [tensor.requires_grad_() for tensor in inputs]

    def gradients(out: Any, keep: bool) -> Any:
        found = torch.autograd.grad(out, leaves, dout, retain_graph=keep)
        return found if len(found) > 1 else found[0]

    if direction == "forward":
        return lambda: function(*leaves, *others)
    if direction == "backward":
        out = function(*leaves, *others)
        return lambda: gradients(out, keep=True)
    return lambda: gradients(function(*leaves, *others), keep=False)


def softmax(data: LayerData, threads: int, compiled: bool) -> Call:
    """Return a call of softmax."""
    torch = _torch(threads)
    a = torch.from_numpy(data.a)

    def function(a: Any) -> Any:
        return torch.softmax(a, dim=1)

    function = torch.compile(function) if compiled else function
    return lambda: function(a)


def update(rule: str, data: LayerData, threads: int) -> Call:
    """Return a call of an optimizer's step, for the rules that torch writes as the book."""
    torch = _torch(threads)
    build: dict[str, Callable[..., Any]] = {
        "SGD": torch.optim.SGD,
        "Momentum": lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9),
        "AdaGrad": lambda params, lr: torch.optim.Adagrad(params, lr, eps=1e-7),
        "RMSprop": lambda params, lr: torch.optim.RMSprop(params, lr, alpha=0.99, eps=1e-7),
    }
    W = torch.from_numpy(data.a.copy()).requires_grad_()
    W.grad = torch.from_numpy(data.dout)
    optimizer = build[rule]([W], lr=RATES.get(rule, DEFAULT_RATE))

    def call() -> Any:
        optimizer.step()
        return W

    return call


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch


def _parts(torch: Any, name: str, data: LayerData) -> tuple[Any, list[Any], list[Any], Any]:
    """Return a layer's function, its inputs, its targets, and the gradient of its output."""
    F, tensor = torch.nn.functional, torch.from_numpy
    dout = tensor(data.dout)
    if name == "affine":
        # torch keeps its weights as (out, in).
        return (
            lambda x, W, b: torch.addmm(b, x, W),
            [tensor(data.x), tensor(data.W), tensor(data.b)],
            [],
            dout,
        )
    if name in ("relu", "sigmoid"):
        return getattr(torch, name), [tensor(data.a)], [], dout
    targets = tensor(data.rows if "one-hot" in name else data.t)
    return F.cross_entropy, [tensor(data.a)], [targets], None
