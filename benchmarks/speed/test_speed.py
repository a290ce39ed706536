"""The table of cases in pytest-benchmark: ``pytest benchmarks/speed``.

A group is one operation on one shape, its members are the implementations, so the table shows their
ratios.  Nothing is timed before its result has been compared with the reference's.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastbp.bench.agreement import numbers, require_agreement
from fastbp.bench.cases import Case
from fastbp.bench.machine import Unavailable
from fastbp.bench.peaks import limits
from fastbp.bench.processes import Peak

MAX_SECONDS = 0.5

# What other packages warn of is not what is tested here.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.benchmark(max_time=MAX_SECONDS)]

# Whose calls go on from the last result: each round has a call of its own.
CHANGING = ("update ", "training step")
CHANGING_ROUNDS = 50
PROCESS_ROUNDS = 3


def test_speed(benchmark: Any, case: Case, implementation: str) -> None:
    """Compare, time, and note what the times mean."""

    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        call = case.build(implementation)
        call()  # compiles
        return (call,), {}

    try:
        call = case.build(implementation)
    except Unavailable as reason:
        pytest.skip(str(reason))
    result, expected = call(), case.build("reference")()
    require_agreement(case, {"reference": expected, implementation: result})
    benchmark.group = case.name
    if case.is_process:
        benchmark.pedantic(call, rounds=PROCESS_ROUNDS)
    elif case.operation.startswith(CHANGING):
        benchmark.pedantic(lambda call: call(), setup=fresh, rounds=CHANGING_ROUNDS)
    else:
        benchmark(call)
    benchmark.extra_info.update(notes(case, result, expected))
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info.update(rates(case, benchmark.stats.stats.median))


def notes(case: Case, result: Any, expected: Any) -> dict[str, Any]:
    """Return what is known without a time."""
    apart = [
        float(abs(ours - right).max(initial=0.0))
        for ours, right in zip(numbers(result), numbers(expected), strict=True)
    ]
    found = {
        "operation": case.operation,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "threads": case.threads,
        "flops": case.flops,
        "bytes": case.bytes,
        "largest difference from the reference": max(apart),
    }
    if isinstance(result, Peak):
        found["peak memory, bytes"] = result.bytes
    return found


def rates(case: Case, seconds: float) -> dict[str, float]:
    """Return how much was computed and moved in a second, and the share of what a core could."""
    found = {}
    if case.bytes:
        found["GB/s"] = case.bytes / seconds / 1e9
    if case.flops:
        found["GF/s"] = case.flops / seconds / 1e9
        found["share of peak"] = case.flops / seconds / case.threads / limits().flops[case.dtype]
    return found
