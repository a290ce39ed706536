"""Operations of single layers in JAX, each one compiled function.

A backward pass is given the inputs instead of what a forward pass has saved, and XLA computes again
what it needs of them.
"""

from __future__ import annotations

import os
from typing import Any

from .machine import Unavailable
from .with_numpy import Call, LayerData

_threads: int | None = None


def jax_with(threads: int) -> Any:
    """Import JAX for the CPU, with 64-bit types, on so many threads.

    XLA's pool has as many threads as NPROC says when JAX is first used, for good.  A call computes
    in the calling thread: handed to another, as JAX does unless told, it takes up to 70 us longer.
    """
    global _threads
    if _threads not in (None, threads):
        raise Unavailable(f"jax keeps the {_threads} threads it began with in this process")
    before = os.environ.get("NPROC")
    os.environ["NPROC"] = str(threads)
    try:
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.devices()
    finally:
        if before is None:
            del os.environ["NPROC"]
        else:
            os.environ["NPROC"] = before
    _threads = threads
    return jax


def layer(name: str, direction: str, data: LayerData, threads: int) -> Call:
    """Return a call of a layer's forward, its backward, or both."""
    jax = jax_with(threads)
    function = _function(jax, name)
    one = data.a.dtype.type(1)
    others: tuple[Any, ...] = ()
    inputs: tuple[Any, ...] = (data.a,)
    dout: Any = data.dout
    if name == "affine":
        inputs = (data.x, data.W, data.b)
    elif name.startswith("softmax"):
        others = (data.rows if "one-hot" in name else data.t,)
        dout = one
    inputs, others, dout = jax.device_put((inputs, others, dout))

    def gradients(inputs: Any, others: Any, dout: Any) -> Any:
        out, pull = jax.vjp(lambda *inputs: function(*inputs, *others), *inputs)
        found = pull(dout)
        return out, found if len(found) > 1 else found[0]

    if direction == "forward":
        forward = jax.jit(function)
        return lambda: forward(*inputs, *others).block_until_ready()
    if direction == "backward":
        backward = jax.jit(lambda *arguments: gradients(*arguments)[1])
        return lambda: jax.block_until_ready(backward(inputs, others, dout))
    both = jax.jit(gradients)
    return lambda: jax.block_until_ready(both(inputs, others, dout))[1]


def softmax(data: LayerData, threads: int) -> Call:
    """Return a call of softmax."""
    jax = jax_with(threads)
    a, function = jax.device_put(data.a), jax.jit(jax.nn.softmax)
    return lambda: function(a).block_until_ready()


def _function(jax: Any, name: str) -> Any:
    """Return a layer's function of its inputs."""
    jnp = jax.numpy

    def loss(a: Any, t: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(a), t[:, None], axis=1).mean()

    def loss_of_rows(a: Any, rows: Any) -> Any:
        return -(rows * jax.nn.log_softmax(a)).sum(axis=1).mean()

    return {
        "affine": lambda x, W, b: x @ W + b,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "softmax loss": loss,
        "softmax loss, one-hot": loss_of_rows,
    }[name]
