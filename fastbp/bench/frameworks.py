"""PyTorch and JAX, as :mod:`fastbp.bench.peers` has the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .peers import Pairs, Peer
from .with_jax import jax_with
from .workloads import BETA1, BETA2, EPS, MOMENTUM, Array, weights


class Torch(Peer):
    """PyTorch, eager: CrossEntropyLoss and an optimizer of ``torch.optim`` with its defaults."""

    def prepare(self) -> None:
        """Build model and tensors."""
        import torch

        torch.set_num_threads(self.threads)
        self.torch = torch
        dtype = getattr(torch, self.workload.dtype)
        layers: list[Any] = []
        for W, _ in weights(self.workload):
            layers += [torch.nn.ReLU()] if layers else []
            layers += [torch.nn.Linear(*W.shape, dtype=dtype)]
        self.linears = layers[::2]
        self.model = torch.nn.Sequential(*layers)
        self.x, self.t = torch.from_numpy(self.x), torch.from_numpy(self.t)
        self.x_test = torch.from_numpy(self.x_test)
        self.forward = self.build_forward()

    def build_forward(self) -> Callable[..., Any]:
        """Return the function from a batch to its loss."""
        criterion = self.torch.nn.CrossEntropyLoss()
        return lambda x, t: criterion(self.model(x), t)

    def reset(self) -> None:
        """Copy the weights in and begin a new optimizer."""
        with self.torch.no_grad():
            for linear, (W, b) in zip(self.linears, weights(self.workload), strict=True):
                linear.weight.copy_(self.torch.from_numpy(W.T))
                linear.bias.copy_(self.torch.from_numpy(b))
        groups = [
            {"params": [linear.weight for linear in self.linears]},
            {"params": [linear.bias for linear in self.linears], "weight_decay": 0.0},
        ]
        options = {"lr": self.workload.lr, "weight_decay": self.workload.decay}
        optim = self.torch.optim
        if self.workload.optimizer == "adam":
            self.optimizer = optim.Adam(groups, betas=(BETA1, BETA2), eps=EPS, **options)
        else:
            momentum = MOMENTUM if self.workload.optimizer == "momentum" else 0.0
            self.optimizer = optim.SGD(groups, momentum=momentum, **options)

    def train(self, rows: Array) -> None:
        """Run the usual loop."""
        for batch in self.torch.from_numpy(rows):
            self.optimizer.zero_grad()
            self.forward(self.x[batch], self.t[batch]).backward()
            self.optimizer.step()

    def step(self) -> None:
        """Take the usual step."""
        self.optimizer.zero_grad()
        self.forward(self.x, self.t).backward()
        self.optimizer.step()

    def gradient(self) -> Pairs:
        """Return the gradients autograd leaves."""
        self.optimizer.zero_grad()
        self.forward(self.x, self.t).backward()
        return [(linear.weight.grad.numpy().T, linear.bias.grad.numpy()) for linear in self.linears]

    def parameters(self) -> Pairs:
        """Return the tensors as arrays."""
        tensors = [(linear.weight.detach(), linear.bias.detach()) for linear in self.linears]
        return [(W.numpy().T, b.numpy()) for W, b in tensors]

    def logits(self, x: Any) -> Array:
        """Evaluate the model."""
        with self.torch.no_grad():
            return self.model(x).numpy()


class TorchCompile(Torch):
    """PyTorch with forward and backward through ``torch.compile``."""

    def build_forward(self) -> Callable[..., Any]:
        """Compile the function from a batch to its loss."""
        self.compiled = self.torch.compile(self.model)
        return self.torch.compile(super().build_forward())

    def logits(self, x: Any) -> Array:
        """Evaluate the compiled model."""
        with self.torch.no_grad():
            return self.compiled(x).numpy()


class Jax(Peer):
    """JAX, one compiled function a step."""

    def prepare(self) -> None:
        """Put the data where JAX has them, and compile."""
        jax = self.jax = jax_with(self.threads)
        self.x, self.t = jax.device_put(self.x), jax.device_put(self.t.astype(np.int32))
        self.x_test = jax.device_put(self.x_test)
        self.step_of_rows = jax.jit(self.one_step, donate_argnums=0)
        self.forward = jax.jit(self.network)
        self.grad = jax.jit(jax.grad(self.batch_loss))
        self.step_of_all = jax.jit(
            lambda state, x, t: self.one_step(state, x, t, slice(None)), donate_argnums=0
        )

    def network(self, params: Any, x: Any) -> Any:
        """Return the logits."""
        for i, (W, b) in enumerate(params):
            x = (self.jax.numpy.maximum(x, 0) if i else x) @ W + b
        return x

    def batch_loss(self, params: Any, x: Any, t: Any) -> Any:
        """Return the loss of a batch, with the weight decay."""
        jnp = self.jax.numpy
        log_y = self.jax.nn.log_softmax(self.network(params, x))
        value = -jnp.take_along_axis(log_y, t[:, None], axis=1).mean()
        if self.workload.decay:
            value += 0.5 * self.workload.decay * sum((W**2).sum() for W, _ in params)
        return value

    def one_step(self, state: Any, x: Any, t: Any, batch: Any) -> Any:
        """Return parameters, optimizer state and step number after a batch."""
        params, moments, number = state
        value, grads = self.jax.value_and_grad(self.batch_loss)(params, x[batch], t[batch])
        rules: dict[str, Callable[..., Any]] = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}
        rule = rules[self.workload.optimizer]
        update = partial(rule, self.jax.numpy, self.workload.lr, number + 1)
        new = self.jax.tree.map(update, params, grads, *moments)
        outer = self.jax.tree.structure(params)
        inner = self.jax.tree.structure((0,) * (1 + len(moments)))
        params, *moments = self.jax.tree.transpose(outer, inner, new)
        return (params, tuple(moments), number + 1), value

    def reset(self) -> None:
        """Make new arrays."""
        count = {"sgd": 0, "momentum": 1, "adam": 2}[self.workload.optimizer]
        params = weights(self.workload)
        zeros = [[(0 * W, 0 * b) for W, b in params] for _ in range(count)]
        self.state = self.jax.device_put((params, tuple(zeros), np.int32(0)))
        self.jax.block_until_ready(self.state)

    def train(self, rows: Array) -> None:
        """Call the compiled step with one batch after the other."""
        for batch in rows.astype(np.int32):
            self.state, _ = self.step_of_rows(self.state, self.x, self.t, batch)
        self.jax.block_until_ready(self.state)

    def step(self) -> None:
        """Call the compiled step with all rows."""
        self.state, _ = self.step_of_all(self.state, self.x, self.t)
        self.jax.block_until_ready(self.state)

    def gradient(self) -> Pairs:
        """Call the compiled gradient."""
        grads = self.grad(self.state[0], self.x, self.t)
        return [(np.asarray(W), np.asarray(b)) for W, b in grads]

    def parameters(self) -> Pairs:
        """Return the arrays as NumPy's."""
        return [(np.asarray(W), np.asarray(b)) for W, b in self.state[0]]

    def logits(self, x: Any) -> Array:
        """Evaluate the network."""
        return np.asarray(self.forward(self.state[0], x))


class JaxScan(Jax):
    """JAX, an epoch of steps in one compiled loop."""

    whole_groups = True

    def prepare(self) -> None:
        """Compile the loop instead of the step."""
        super().prepare()
        self.loop = self.jax.jit(self.all_steps, donate_argnums=0)

    def all_steps(self, state: Any, x: Any, t: Any, rows: Any) -> Any:
        """Return the state after all batches."""
        return self.jax.lax.scan(lambda s, batch: self.one_step(s, x, t, batch), state, rows)

    def train(self, rows: Array) -> None:
        """Call the compiled loop."""
        self.state, _ = self.loop(self.state, self.x, self.t, rows.astype(np.int32))
        self.jax.block_until_ready(self.state)


def _sgd(jnp: Any, lr: float, number: Any, p: Any, g: Any) -> Any:
    return (p - lr * g,)


def _momentum(jnp: Any, lr: float, number: Any, p: Any, g: Any, v: Any) -> Any:
    v = MOMENTUM * v - lr * g
    return p + v, v


def _adam(jnp: Any, lr: float, number: Any, p: Any, g: Any, m: Any, v: Any) -> Any:
    m = m + (1 - BETA1) * (g - m)
    v = v + (1 - BETA2) * (g * g - v)
    number = number.astype(p.dtype)
    rate = lr * jnp.sqrt(1 - BETA2**number) / (1 - BETA1**number)
    return p - rate * m / (jnp.sqrt(v) + EPS), m, v
