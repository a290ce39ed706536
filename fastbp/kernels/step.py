"""Training steps, over a table of layers: compiled once, for every network.

A step is a short *program*: gather a batch, forward through each layer, loss, backward, update.
The network is data: a table of layers, a table of panels, and one flat buffer in which everything
lies (:mod:`fastbp.plan` lays it out).  So one compilation serves every network, and evaluation,
prediction and a single gradient are only other programs.

Threads divide an operation by what it writes: rows of the batch, rows of W, or panels of W where a
layer is too big for one core's cache.  Every sum is computed whole, by one thread, in one order:
the number of threads does not change a bit.  Neighbouring operations that divide the batch alike
are one *region*: threads meet before it, and not within.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .arguments import arguments_at
from .backward import backward, sum_squares, update, update_bias
from .calls import call_at
from .exchange import exchange_at
from .forward import (
    forward,
    gather,
    join_halves,
    softmax_loss,
    store,
    total_loss,
)
from .gemm import TILE_ROWS
from .jit import (
    JIT_DISABLED,
    get_num_threads,
    intrinsic,
    kernel,
    part,
    prange,
    set_num_threads,
)
from .meeting import all_come, meet
from .simd import row_of
from .sparse_layer import operate_sparse_at
from .sparse_once import operate_once_at
from .tables import (
    BACK_FIRST,
    BACK_LAST,
    BACKWARD,
    BEGINS_REGION,
    BY_INPUTS,
    BY_PANELS,
    COMPRESS,
    DELIVER,
    DIVISION,
    FETCH,
    FIRST,
    FORWARD,
    GATHER,
    GROUP,
    INPUTS,
    JOIN,
    LAST,
    LAYER,
    LOSS,
    MEASURE,
    OPERATION,
    SPARSE,
    SQUARES,
    STORE,
    UPDATE,
    half_of_inputs,
    share,
)


def _region(
    arguments: int, one: Any, begin: int, end: int, step: int, first: int, last: int, thread: int,
    threads: int,
) -> None:  # fmt: skip
    """Do one thread's share of the operations between two meetings of the threads.

    A share is some rows of the batch, some rows of W (inputs) and some of its panels.  Each kind of
    work is called in one place only: every call is compiled into this one.  ``arguments`` and
    ``one`` are as for :func:`_run`.
    """
    net, data, rule, rows = arguments_at(arguments, one)
    for i in range(first, last):
        operation = row_of(net.program, i)
        what, l, division = operation[OPERATION], operation[LAYER], operation[DIVISION]
        layer, B, segments = row_of(net.layers, l), end - begin, data.edges.size - 1
        is_sparse = l == 0 and data.source == SPARSE
        for half in range(2):  # of the inputs, if these are divided; one thread does both
            n0, n1 = share(B, TILE_ROWS, 0, 1)
            k0, k1 = share(layer[INPUTS], TILE_ROWS, 0, 1)
            r0, r1 = 0, segments
            p0, p1 = layer[FIRST], layer[LAST]
            ahead, ahead_end = end, end  # of the next batch, to be fetched from memory meanwhile
            if what == BACKWARD:
                p0, p1 = layer[BACK_FIRST], layer[BACK_LAST]
            if division == BY_INPUTS:
                if half % threads != thread:
                    continue
                k0, k1 = half_of_inputs(layer, half)
                r0, r1 = half * (segments // 2), (half + 1) * (segments // 2)
                ahead_end = end + B
            elif half == 1:
                break
            elif division == BY_PANELS:
                q0, q1 = share(p1 - p0, 1, thread, threads)
                p0, p1 = p0 + q0, p0 + q1
                m0, m1 = share(B, TILE_ROWS, thread, threads)
                ahead, ahead_end = end + m0, end + m1
            elif what in (SQUARES, UPDATE, DELIVER):
                k0, k1 = share(
                    layer[INPUTS], GROUP if what == SQUARES else TILE_ROWS, thread, threads
                )
            else:
                n0, n1 = share(B, TILE_ROWS, thread, threads)

            bias = division == BY_PANELS or (thread == 0 and half == 0)
            if what == UPDATE and bias:
                update_bias(net, rule, l, B, p0, p1, thread, step)
            once = what == COMPRESS or (what == FORWARD and division != BY_INPUTS)
            if is_sparse and once and data.x.size:
                operate_once_at(net.once, arguments, one, begin, n0, min(n1, B), r0, r1, what)
            elif is_sparse and what in (COMPRESS, FORWARD, UPDATE):
                operate_sparse_at(
                    net.sparse, arguments, one, begin, B, n0, min(n1, B), r0, r1, half,
                    thread, step, what,
                )  # fmt: skip
            elif what in (FETCH, DELIVER):
                if data.params.size:
                    exchange_at(
                        net.exchange, arguments, one, l, half, k0, k1, p0, p1, int(bias), what
                    )
            elif what == GATHER:
                gather(net, data, rows, begin, end, n0, n1, half, k0, k1)
            elif what == SQUARES:
                sum_squares(net, l, k0, k1)
            elif what == FORWARD:
                forward(net, l, B, division == BY_INPUTS, half, n0, n1, p0, p1, thread)
            elif what == JOIN:
                join_halves(net, l, n0, n1)
            elif what in (LOSS, MEASURE):
                softmax_loss(net, data, rule, rows, begin, end, n0, n1, what == MEASURE)
            elif what == STORE:
                store(net, data, rows, begin, end, n0, n1)
            elif what == BACKWARD:
                backward(net, l, n0, n1, p0, p1)
            else:
                update(
                    net, data, rule, rows, ahead, ahead_end, B, l, half, k0, k1, p0, p1, thread,
                    step,
                )  # fmt: skip


@intrinsic
def _call_region(
    typing: Any, address: Any, arguments: Any, one: Any, begin: Any, end: Any, step: Any,
    first: Any, last: Any, thread: Any, threads: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``region`` at an address.

    ``run`` alone has an entry from Python; the region, nearly all there is to compile, needs none.
    """
    return call_at(arguments, one, begin, end, step, first, last, thread, threads)


def _call_region_in_python(code: int, *arguments: Any) -> None:
    """Do what the intrinsic does, where nothing is compiled."""
    _region(*arguments)


if JIT_DISABLED:
    _call_region = _call_region_in_python


@part
def end_of_region(net: Any, first: int) -> int:
    """Return where the operations end that follow the first one without a meeting."""
    last = first + 1
    while last < net.program.shape[0] and net.program[last, BEGINS_REGION] == 0:
        last += 1
    return last


def _run(
    done: Any, losses: Any, right: Any, one: Any, code: int, arguments: int, begins: Any,
    meeting: Any, worker: int, workers: int, threads: int,
) -> None:  # fmt: skip
    """Run the program once for each batch: one worker's part of it.

    Parameters
    ----------
    done : (workers,) int64 - this worker's is overwritten with the number of batches done, all or
        up to the one whose loss is not finite; or with 0, if not all workers have come
    losses : (S,) float64 - overwritten with the mean loss of each batch, before the update
    right : (S,) int64 - overwritten with the number of examples right, by 'measure' only
    one : float32 or float64 - any number of the network's type
    code : int - the address of the compiled ``region``
    arguments : int - where net, data, rule and the examples of all batches were left; the buffer
        and the state of net are updated
    begins : (S + 1,) int64 - where in ``rows`` each batch begins, and the last one ends
    meeting : int64 array - as :mod:`.meeting` needs it, if there are more workers
    worker, workers : int - which one of how many runs this; the first one notes the results
    threads : int - how many shares the workers have to do
    """
    net, _, rule, _ = arguments_at(arguments, one)
    if workers > 1 and not all_come(meeting, workers):
        done[worker] = 0
        return
    operations, met = net.program.shape[0], 0
    for s in range(losses.size):
        begin, end = begins[s], begins[s + 1]
        first = 0
        while first < operations:
            last = end_of_region(net, first)
            if workers > 1 and net.program[first, BEGINS_REGION] != 0:
                met += 1
                meet(meeting, worker, workers, met)
            if net.program[first, OPERATION] == UPDATE:
                loss = total_loss(net, rule, end - begin)
                if worker == 0:
                    losses[s] = loss
                if rule.stop != 0 and not math.isfinite(loss):
                    done[worker] = s + 1
                    return
            for thread in range(worker, threads, workers):
                _call_region(code, arguments, one, begin, end, s, first, last, thread, threads)
            first = last
        if net.program[operations - 1, OPERATION] == MEASURE:
            if workers > 1:
                met += 1
                meet(meeting, worker, workers, met)
            if worker == 0:
                losses[s] = total_loss(net, rule, end - begin)
                hits = 0.0
                for n in range(end - begin):
                    hits += net.work[2, n]
                right[s] = np.int64(hits)
    done[worker] = losses.size


@intrinsic
def _call_run(
    typing: Any, address: Any, done: Any, losses: Any, right: Any, one: Any, code: Any,
    arguments: Any, begins: Any, meeting: Any, worker: Any, workers: Any, threads: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``run`` at an address."""
    return call_at(
        done, losses, right, one, code, arguments, begins, meeting, worker, workers, threads
    )


def _run_parallel(
    done: Any, losses: Any, right: Any, one: Any, code: int, arguments: int, begins: Any,
    meeting: Any, run: int, workers: int, threads: int,
) -> None:  # fmt: skip
    """Call ``run``, at an address, once for each worker, on as many threads at a time."""
    before = get_num_threads()
    set_num_threads(workers)
    for worker in prange(workers):
        _call_run(
            run, done, losses, right, one, code, arguments, begins, meeting, worker, workers,
            threads,
        )  # fmt: skip
    set_num_threads(before)


region = kernel("int64, T," + "int64," * 6 + "int64", by_address=True)(_region)
_RUN = (
    "int64[::1], float64[::1], int64[::1], T, int64, int64, int64[::1], int64[::1], int64, int64, "
    "int64"
)
run = kernel(_RUN)(_run)
run_parallel = kernel(_RUN, parallel=True)(_run_parallel)
