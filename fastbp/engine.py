"""Runs the compiled loop: which code, how many threads, how many steps at a time.

Between :mod:`fastbp.network` and :mod:`fastbp.trainer`, which know what a user wants, and
:mod:`fastbp.kernels.step`, which knows neither clocks nor Python objects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import threads as _threads
from ._arrays import Array, as_kernel_array
from .kernels import jit, step
from .plan import MAX_THREADS, Plan

# Multiply-adds of a step from which a second thread is worth a try: 20 us on one core.
PARALLEL_WORK = 1_000_000
# Seconds a compiled call should take: long against its overhead, short enough for Ctrl-C and the
# progress bar.
CALL_SECONDS = 0.02
# The most batches a call, however short they are.
CALL_BATCHES = 1000
# How often the other number of threads gets another try, in calls.
PROBE_EVERY = 40

# Evaluation and prediction take so many examples at a time: a multiple of a tile's rows, and the
# activations between layers stay in the cache.  A constant, so that sums do not depend on it.
CONSECUTIVE_ROWS = 252

KEEP_GRADIENT = step.Rule(step.KEEP, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0.0)


def as_data(where: str, x: Array, t: Array, dtype: np.dtype[Any]) -> step.Data:
    """Return examples for the loop.

    Parameters
    ----------
    where : str
        For messages.
    x : (N, D) or (N, ...) array
        Bytes stay bytes; any other type becomes ``dtype``, in one copy, unless it is that already.
    t : (N,) int64 labels, or (N, C) rows of ``dtype``
    dtype : float32 or float64
    """
    rows = x.reshape(len(x), -1)
    no_floats, no_bytes = np.empty((0, 0), dtype), np.empty((0, 0), np.uint8)
    no_labels = np.empty(0, np.int64)
    labels, targets = (t, no_floats) if t.ndim == 1 else (no_labels, t)
    if rows.dtype == np.uint8 and rows.flags.carray:
        return step.Data(step.BYTES, no_floats, rows, labels, targets, no_floats)
    rows = as_kernel_array(where, "x", rows, dtype)
    return step.Data(step.FLOATS, rows, no_bytes, labels, targets, no_floats)


class Engine:
    """The compiled loop over one network, for batches of at most some rows.

    Parameters
    ----------
    sizes : sequence of int
    activation : str
    dtype : float32 or float64
    rows : int
        The largest batch.
    slots : int
        Arrays of the optimizer for each parameter.
    decay : bool
        Whether the loss has a weight decay.
    threads : int, optional
        The number of threads; by default the one that turns out faster.

    Attributes
    ----------
    plan : Plan
        Where parameters are packed in and out.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        dtype: Any,
        rows: int,
        slots: int = 0,
        decay: bool = False,
        threads: int | None = None,
    ) -> None:
        self.plan = Plan(sizes, activation, dtype, rows, slots, decay)
        self._nets: dict[tuple[str, bool], step.Net] = {}  # by program, with and without decay
        self._threads = threads
        self._seconds: dict[tuple[str, int], float] = {}  # a batch, by program and threads
        self._calls = 0
        self._work = sum(K * N for K, N in zip(sizes, sizes[1:], strict=False))

    def run(
        self,
        kind: str,
        data: step.Data,
        rule: step.Rule,
        rows: Array,
        begins: Array,
    ) -> tuple[Array, Array]:
        """Run a program once for each batch, in one compiled call.

        Parameters
        ----------
        kind : {'predict', 'measure', 'gradient', 'train'}
        data : Data
        rule : Rule
        rows : int64 array
            The examples of all batches; each in [0, N).
        begins : (S + 1,) int64 array
            Where in rows each batch begins, and where the last one ends.

        Returns
        -------
        losses : (S,) float64
            Fewer, if the rule says to stop at a loss that is not finite.
        right : (S,) int64
        """
        key = kind, rule.decay > 0  # which may change between two calls
        net = self._nets.get(key)
        if net is None:
            self.plan.decay = rule.decay > 0
            net = self._nets[key] = self.plan.net(kind)
        batches = len(begins) - 1
        losses, right = np.zeros(batches), np.zeros(batches, np.int64)
        code = _code_of_region(net, data, rule, rows)
        threads = self._choose(kind, int(begins[1] - begins[0]))
        begin = time.perf_counter()
        if threads == 1:
            done = step.run(losses, right, net, data, rule, rows, begins, code, 1)
        else:
            with jit.on_threads(threads):
                done = step.run_parallel(losses, right, net, data, rule, rows, begins, code, threads)
        self._learn(kind, threads, (time.perf_counter() - begin) / done)
        return losses[:done], right[:done]

    def batches_a_call(self, kind: str) -> int:
        """Return how many batches fit into the time a compiled call should take."""
        times = [t for (k, _), t in self._seconds.items() if k == kind]
        if not times:
            return 4
        return max(1, min(CALL_BATCHES, int(CALL_SECONDS / max(times))))

    def _choose(self, kind: str, batch: int) -> int:
        """Return the number of threads for the next call."""
        most = _threads.compiled_threads() if self._threads is None else self._threads
        most = min(most, MAX_THREADS)  # each has scratch memory of its own
        if most == 1 or _threads.is_forked() or not jit.has_fast_threads():
            return 1
        if self._threads is not None or _threads.is_fixed():
            return most
        if batch * self._work < PARALLEL_WORK:
            return 1
        self._calls += 1
        one, many = (self._seconds.get((kind, n)) for n in (1, most))
        if many is None or one is None:
            return most if many is None else 1
        faster = 1 if one < many else most
        if self._calls % PROBE_EVERY == 0:
            return most + 1 - faster
        return faster

    def _learn(self, kind: str, threads: int, seconds: float) -> None:
        """Remember how long a batch took.

        A sudden change is believed at once: another program has begun to use a core, or ended.
        """
        before = self._seconds.get((kind, threads))
        if before is not None and abs(seconds / before - 1) < 0.5:
            seconds = 0.7 * before + 0.3 * seconds
        self._seconds[kind, threads] = seconds

    def measure(self, data: step.Data, count: int, loss_eps: float) -> tuple[float, int]:
        """Return the sum of the losses, without weight decay, of the first examples, and how many are right."""
        rule = KEEP_GRADIENT._replace(loss_eps=loss_eps)
        loss, right = 0.0, 0
        for losses, hits, sizes in self._consecutive("measure", data, rule, count):
            for mean, size in zip(losses.tolist(), sizes.tolist(), strict=True):
                loss += mean * size  # one by one: how many come in a call depends on the clock
            right += int(hits.sum())
        return loss, right

    def predict(self, out: Array, data: step.Data) -> None:
        """Write the logits of all examples to out, (N, C)."""
        for _ in self._consecutive("predict", data._replace(out=out), KEEP_GRADIENT, len(out)):
            pass

    def _consecutive(
        self, kind: str, data: step.Data, rule: step.Rule, count: int
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Run a program over the first examples; yields each call's results and batch sizes."""
        batch = min(CONSECUTIVE_ROWS, self.plan.rows)
        start = 0
        while start < count:
            stop = min(count, start + batch * self.batches_a_call(kind))
            begins = np.append(np.arange(0, stop - start, batch), stop - start)
            yield *self.run(kind, data, rule, np.arange(start, stop), begins), np.diff(begins)
            start = stop

    def gradient(
        self, data: step.Data, count: int, decay: float, loss_eps: float
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss of all examples as one batch, weight decay included, and its gradient."""
        rule = KEEP_GRADIENT._replace(decay=decay, loss_eps=loss_eps)
        rows, begins = np.arange(count), np.array([0, count])
        loss = float(self.run("gradient", data, rule, rows, begins)[0][0])
        grads = self.plan.empty_params()
        self.plan.unpack_slot(0, grads)
        return loss, grads


def _code_of_region(net: step.Net, data: step.Data, rule: step.Rule, rows: Array) -> int:
    """Return the address of the compiled loop body for a network's type."""
    key = net.buffer.dtype.char
    if key not in _regions:
        _regions[key] = jit.address(step.region, net, data, rule, rows, 0, 0, 0, 0, 0, 0, 0)
    return _regions[key]


_regions: dict[str, int] = {}
