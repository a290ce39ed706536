"""The results of all implementations of a case are the same, or nothing is timed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cases import NUMERICAL_TOLERANCE, Case
from .machine import Disagreement, Unavailable
from .processes import Peak
from .with_numpy import Array, Call

# Below this, differences count as they are: the largest gradient of a sure network is tiny.
SMALLEST_SCALE = 1e-3


# Whose errors are ours; another's leave it out of the comparison of this case.
OWN = ("reference", "fastbp", "numerical")


@dataclass
class Prepared:
    """The calls of a case, made once each.

    Attributes
    ----------
    calls : dict of implementation to callable
    results : dict of implementation to Any
        Of the first calls.
    seconds : dict of implementation to float
        Of the first calls.
    skipped : dict of implementation to str
        Who cannot take part, and why; those that have no such operation are nowhere.
    failed : dict of implementation to str
        Whose call raised an error, and which.
    """

    calls: dict[str, Call] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def prepare(case: Case, wanted: Iterable[str]) -> Prepared:
    """Build the calls of a case and make each once."""
    found = Prepared()
    for name in wanted:
        if name not in case.makers:
            continue
        try:
            call = case.build(name)
            begin = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - begin
        except Unavailable as reason:
            found.skipped[name] = str(reason)
        except Exception as error:
            if name in OWN:
                raise
            first = (str(error).strip().splitlines() or [""])[0]
            found.failed[name] = f"{type(error).__name__}: {first}"
        else:
            found.calls[name], found.results[name] = call, result
            found.seconds[name] = seconds
    return found


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


def check(case: Case, wanted: Iterable[str]) -> dict[str, str]:
    """Call every implementation of a case once and compare; returns who is missing and why.

    Raises
    ------
    Disagreement
    """
    found = prepare(case, wanted)
    require_agreement(case, found.results)
    return found.skipped | found.failed
