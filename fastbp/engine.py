"""Runs the compiled loop: which code, how many threads, how many steps at a time.

Between :mod:`fastbp.network` and :mod:`fastbp.trainer`, which know what a user wants, and
:mod:`fastbp.kernels.step`, which knows neither clocks nor Python objects.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import threads as _threads
from ._arrays import Array, as_kernel_array, is_finite
from ._memory import aligned_zeros
from .kernels import exchange, gemm, jit, sparse_layer, sparse_once, step, tables
from .kernels import rule as rules
from .kernels.arguments import ROOM, leave_arguments
from .kernels.exchange import note_addresses
from .kernels.meeting import YIELD, room_to_meet
from .pace import Company, Pace
from .plan import CONSECUTIVE, Plan

# Multiply-adds of a batch from which a second thread is worth a try.  Of training, whose calls have
# many batches: 3 us on one core.  Else threads may have to be woken for a single one: 20 us.
PARALLEL_WORK, PARALLEL_WORK_ALONE = 50_000, 1_000_000
# Seconds of a training step for each example and weight, at a tenth of what one core can do.
SECONDS_OF_WORK = 6 / 10e9

# Evaluation and prediction take so many examples at a time: a multiple of a tile's rows, and the
# activations between layers stay in the cache.  A constant, so that sums do not depend on it.
CONSECUTIVE_ROWS = 252

KEEP_GRADIENT = tables.Rule(tables.KEEP, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0.0)
EXACT_TYPES = tuple(map(type, KEEP_GRADIENT))

ALONE = np.zeros(0, np.int64)  # in place of a meeting's array


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
        threads: int | None = None,
    ) -> None:
        self.plan = Plan(sizes, activation, dtype, rows, slots)
        self._nets: dict[tuple[str, bool, bool, bool, bool, bool], tables.Net] = {}
        self._threads = threads
        self._paces: dict[tuple[str, int, int, int, bool], Pace] = {}
        self._one_batch = np.zeros(0, np.int64), np.zeros(2, np.int64)  # its rows and begins
        self._work = sum(K * N for K, N in itertools.pairwise(sizes))

    def run(
        self,
        kind: str,
        data: tables.Data,
        rule: tables.Rule,
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
        rule, rows, begins = _exact(rule), _int64(rows), _int64(begins)
        batches = len(begins) - 1
        losses, right = np.zeros(batches), np.zeros(batches, np.int64)
        pace = self._pace(kind, data, int(begins[1] - begins[0]))
        threads = pace.threads
        workers = min(threads, jit.MAX_THREADS)
        if workers > 1 and not _company.is_asked():
            workers = 1
        net, code, run = self._ready(kind, data, rule, workers > 1)
        one = net.buffer.dtype.type(1)
        begin = time.perf_counter()
        memory = np.empty(ROOM, np.int64)  # of this call alone, until it returns
        arguments = leave_arguments(memory, net, data, rule, rows)
        done = np.zeros(workers, np.int64)
        loop = done, losses, right, one, code, arguments, begins
        if workers > 1:
            step.run_parallel(*loop, prepare_meeting(workers), run, workers, threads)
            _company.learn(came=done[0] > 0)
        if done[0] == 0:  # alone, or the others have not come
            step.run(*loop, ALONE, 0, 1, threads)
        count = int(done[0])
        pace.learn(threads, (time.perf_counter() - begin) / count, count)
        return losses[:count], right[:count]

    def load(self, kind: str, data: tables.Data, rule: tables.Rule, batch: int) -> None:
        """Compile or load what the next call of ``run`` needs, for batches of this size."""
        parallel = self._pace(kind, data, batch).threads > 1
        self._ready(kind, data, _exact(rule), parallel)

    def _ready(
        self, kind: str, data: tables.Data, rule: tables.Rule, parallel: bool
    ) -> tuple[tables.Net, int, int]:
        """Return the table of the program, and the addresses of the compiled loop's two parts."""
        sparse, decay = data.source == tables.SPARSE, rule.decay > 0
        steps = rule.kind > tables.SGD or (rule.kind == tables.KEEP and decay)
        # Inputs that are looked at once come as they are; others without zeros, perhaps as codes.
        once, coded = sparse and data.x.size > 0, data.codes.size > 0
        key = kind, sparse, once, coded, decay, steps
        net = self._nets.get(key)
        if net is None:
            net = self.plan.net(kind, sparse, decay)
            net = net._replace(tile=_address_of_tile(net.buffer))
            if once:
                net = net._replace(once=_address_of_once(self.plan.dtype))
            if sparse and not (once and kind in CONSECUTIVE):
                net = net._replace(sparse=_address_of_sparse(self.plan.dtype, coded))
            if steps:
                net = net._replace(rule=_address_of_rule(net, rule))
            if kind == "gradient":
                net = net._replace(exchange=_address_of_exchange(self.plan.dtype))
            self._nets[key] = net
        loaded = net.buffer.dtype.char, parallel
        if loaded not in _loops:
            leave_arguments(np.empty(ROOM, np.int64), net, data, rule, np.zeros(0, np.int64))
            _loops[loaded] = _load(parallel, net.buffer.dtype)
        return net, *_loops[loaded]

    def batches_a_call(self, kind: str, data: tables.Data, batch: int) -> int:
        """Return how many batches of a size the next call of a program should get."""
        return self._pace(kind, data, batch).batches

    def _pace(self, kind: str, data: tables.Data, batch: int) -> Pace:
        """Return what chooses threads for a program, anew when the process's setting changed."""
        most, fixed = self._threads, True
        if most is None:
            most, fixed = _threads.compiled_threads(), _threads.is_fixed()
        most = min(most, tables.MAX_THREADS)  # each has scratch memory of its own
        least = PARALLEL_WORK if kind == "train" else PARALLEL_WORK_ALONE
        small = not fixed and batch * self._work < least
        if most > 1 and (small or not _threads.can_run_parallel()):
            most = 1
        # Times of batches that are about as large, and of the same kind of inputs.
        key = kind, data.source, batch.bit_length(), most, fixed
        if key not in self._paces:
            self._paces[key] = Pace(most, fixed, batch * self._work * SECONDS_OF_WORK)
        return self._paces[key]

    def measure(self, data: tables.Data, count: int, loss_eps: float) -> tuple[float, int]:
        """Return the sum of the first examples' losses, and how many of them are right.

        Weight decay is left out.
        """
        rule = KEEP_GRADIENT._replace(loss_eps=loss_eps)
        loss, right = 0.0, 0
        for losses, hits, sizes in self._consecutive("measure", data, rule, count):
            for mean, size in zip(losses.tolist(), sizes.tolist(), strict=True):
                loss += mean * size  # one by one: how many come in a call depends on the clock
            right += int(hits.sum())
        return loss, right

    def predict(self, out: Array, data: tables.Data) -> None:
        """Write the logits of all examples to out, (N, C)."""
        for _ in self._consecutive("predict", data._replace(out=out), KEEP_GRADIENT, len(out)):
            pass

    def _consecutive(
        self, kind: str, data: tables.Data, rule: tables.Rule, count: int
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Run a program over the first examples; yields each call's results and batch sizes."""
        batch = min(CONSECUTIVE_ROWS, self.plan.rows)
        start = 0
        while start < count:
            stop = min(count, start + batch * self.batches_a_call(kind, data, batch))
            begins = np.append(np.arange(0, stop - start, batch), stop - start)
            yield *self.run(kind, data, rule, np.arange(start, stop), begins), np.diff(begins)
            start = stop

    def gradient(
        self,
        params: Mapping[str, Array],
        data: tables.Data,
        count: int,
        decay: float,
        loss_eps: float,
    ) -> tuple[float, dict[str, Array]]:
        """Return the loss of all examples as one batch, weight decay included, and its gradient.

        With the user's parameters, whatever is packed in.
        """
        grads = self.plan.empty_params()
        # Held until the end: compiled code has their addresses.
        given = [
            as_kernel_array("gradient", key, params[key], self.plan.dtype, grad.shape)
            for key, grad in grads.items()
        ]
        taken = list(grads.values())
        where = np.empty((2, len(given)), np.int64)
        data = data._replace(params=where[0], grads=where[1])
        for l in range(len(given) // 2):
            pair = slice(2 * l, 2 * l + 2)
            note_addresses(data.params, data.grads, l, *given[pair], *taken[pair])
        rule = tables.Rule(tables.KEEP, 0.0, 0.0, 0.0, 0.0, decay, 0, 0, loss_eps)
        if len(self._one_batch[0]) != count:
            self._one_batch = np.arange(count), np.array([0, count])
        rows, begins = self._one_batch
        losses, _ = self.run("gradient", data, rule, rows, begins)
        if data.source == tables.SPARSE and not (
            is_finite(self.plan.finite) and is_finite(grads["b1"])
        ):
            # 0 times infinity is NaN, but nothing where zeros are skipped: neither forward, beside
            # a weight, nor backward, beside a gradient, of which that of b1 is the sum.
            data = data._replace(source=tables.FLOATS)
            losses, _ = self.run("gradient", data, rule, rows, begins)
        return float(losses[0]), grads


def prepare_meeting(workers: int) -> Array:
    """Return the array that the threads of one call need to meet."""
    meeting = aligned_zeros(room_to_meet(workers), np.dtype(np.int64))
    meeting[YIELD] = _threads.address_of_yield()
    return meeting


def _exact(rule: tables.Rule) -> tables.Rule:
    """Return a rule with numbers of exactly the types the compiled code was made for.

    It is called by its address, where nobody converts: a user's learning rate may be an int, or a
    NumPy scalar.
    """
    if tuple(map(type, rule)) == EXACT_TYPES:
        return rule
    numbers: list[Any] = [
        type(like)(value) for like, value in zip(KEEP_GRADIENT, rule, strict=True)
    ]
    return tables.Rule(*numbers)


def _int64(numbers: Array) -> Array:
    return np.ascontiguousarray(numbers, np.int64)


def _address_of_tile(buffer: Array) -> int:
    """Compile or load the tile for a type; returns where its code begins."""
    matrix, one = (buffer, 0, 0), buffer.dtype.type(1)
    arguments = 0, *matrix, 0, 0, *matrix, 0, 0, *matrix, one, one, 0, 0, 0
    return _address(gemm.tile, buffer.dtype, *arguments)


def _address_of_sparse(dtype: np.dtype[Any], coded: bool) -> int:
    """Compile or load the work on sparse inputs for a type; returns where its code begins."""
    kernel = sparse_layer.operate_codes if coded else sparse_layer.operate_values
    return _address(kernel, dtype, 0, dtype.type(1), *(0,) * 10)


def _address_of_once(dtype: np.dtype[Any]) -> int:
    """Compile or load the work on inputs looked at once for a type; returns where it begins."""
    return _address(sparse_once.operate_once, dtype, 0, dtype.type(1), *(0,) * 6)


def _address_of_rule(net: tables.Net, rule: tables.Rule) -> int:
    """Compile or load the step along a gradient for a type; returns where its code begins."""
    arguments = net.buffer, net.state, rule, *(0,) * 4, 0.0, 0
    return _address(rules.apply_rule, net.buffer.dtype, *arguments)


def _address_of_exchange(dtype: np.dtype[Any]) -> int:
    """Compile or load the copies from and to users' arrays; returns where the code begins."""
    return _address(exchange.exchange, dtype, 0, dtype.type(1), *(0,) * 8)


def _load(parallel: bool, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Compile or load the loop for a type; returns the addresses of its body and of itself."""
    one, numbers = dtype.type(1), np.zeros(0, np.int64)
    code = _address(step.region, dtype, 0, one, *(0,) * 7)
    arguments = numbers, np.zeros(0), numbers, one, 0, 0, numbers, numbers, 0, 0, 0
    run = _address(step.run, dtype, *arguments)
    if parallel:
        _address(step.run_parallel, dtype, *arguments)
    return code, run


def _address(kernel: Any, dtype: np.dtype[Any], *arguments: Any) -> int:
    """Compile or load a kernel for a type; returns where its code begins."""
    if (kernel, dtype.char) not in _addresses:
        _addresses[kernel, dtype.char] = jit.address(kernel, *arguments)
    return _addresses[kernel, dtype.char]


# Of all Python threads: what keeps threads from coming is the process's, or the machine's.
_company = Company()
# Where the code of the kernels that are loaded begins.
_addresses: dict[tuple[Any, str], int] = {}
# Where the loop's body begins, and the loop, for each type, with or without the parallel shell.
_loops: dict[tuple[str, bool], tuple[int, int]] = {}
