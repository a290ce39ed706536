"""The results of all implementations of a case are the same, or nothing is timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .cases import NUMERICAL_TOLERANCE, Case
from .machine import Unavailable
from .processes import Peak
from .with_numpy import Array, Call

# Below this, differences count as they are: the largest gradient of a sure network is tiny.
SMALLEST_SCALE = 1e-3


class Disagreement(Exception):  # noqa: N818 - a result, that must stop a comparison
    """Two implementations of a case gave different results: says which and how far apart."""


def build_calls(
    case: Case, wanted: Mapping[str, object] | tuple[str, ...] | list[str]
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the calls of those implementations that can take part, and why others cannot.

    Those that have no such operation are in neither.
    """
    calls, skipped = {}, {}
    for name in wanted:
        if name in case.makers:
            try:
                calls[name] = case.build(name)
            except Unavailable as reason:
                skipped[name] = str(reason)
    return calls, skipped


def require_agreement(case: Case, results: Mapping[str, Any]) -> None:
    """Compare everybody's results with the reference's.

    Raises
    ------
    Disagreement
        When one is of another shape, or farther off than the case allows.
    """
    if "reference" not in results:
        raise Disagreement(f"{case.name}: there is no reference to compare with")
    expected = list(numbers(results["reference"]))
    for name, result in results.items():
        tolerance = case.tolerance if name != "numerical" else NUMERICAL_TOLERANCE
        found = list(numbers(result))
        if [a.shape for a in found] != [a.shape for a in expected]:
            raise Disagreement(
                f"{case.name}: {name} gives shapes {[a.shape for a in found]}, "
                f"the reference {[a.shape for a in expected]}"
            )
        for ours, right in zip(found, expected, strict=True):
            scale = max(SMALLEST_SCALE, float(np.max(np.abs(right), initial=0.0)))
            apart = float(np.max(np.abs(ours - right), initial=0.0)) / scale
            if not apart <= tolerance:  # not for NaN either
                raise Disagreement(
                    f"{case.name}: {name} is off by {apart:.1e} of the largest number, "
                    f"allowed are {tolerance:.0e}"
                )


def numbers(result: Any) -> Iterator[Array]:
    """Yield the arrays of a result as NumPy's, in float64."""
    if isinstance(result, Peak):
        result = result.result
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        for part in result:
            yield from numbers(part)
        return
    if hasattr(result, "detach"):
        result = result.detach()
    if hasattr(result, "numpy"):
        result = result.numpy()
    yield np.asarray(result, np.float64)


def check(case: Case, wanted: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Call every implementation of a case once and compare; returns who was left out and why.

    Raises
    ------
    Disagreement
    """
    calls, skipped = build_calls(case, wanted)
    require_agreement(case, {name: call() for name, call in calls.items()})
    return skipped
