"""What was measured, as a record that goes to a JSON file and back."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import machine
from .peaks import limits
from .timing import Times

FORMAT = 1
# Digits kept: the times are not better than that.
DIGITS = 4


def rounded(value: float) -> float:
    """Return a number with the digits that are kept."""
    return float(f"{value:.{DIGITS}g}")


def row(times: Times) -> dict[str, Any]:
    """Return what is kept of a case: medians, and ratios of neighbouring turns."""
    case = times.case
    kept = {
        "operation": case.operation,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "threads": case.threads,
        "unit": case.unit,
        "flops": rounded(case.flops),
        "bytes": rounded(case.bytes),
        "medians": {name: rounded(times.median(name)) for name in times.values},
        "ratios": {name: rounded(ratio) for name, ratio in times.ratios.items()},
        "rounds": len(times.values["reference"]) // 2,
    }
    return kept | ({"failed": dict(times.failed)} if times.failed else {})


def record(rows: Sequence[dict[str, Any]], skipped: dict[str, str], load: float) -> dict[str, Any]:
    """Return everything about a run: the machine, who was left out, its limits, the rows.

    ``load`` is the machine's before anything was measured.
    """
    best = limits()
    return {
        "format": FORMAT,
        "date": time.strftime("%Y-%m-%d"),
        "versions": machine.versions(),
        "processor": machine.processor(),
        "load": round(load, 1),
        "skipped": skipped,
        "limits": {
            "flops": {dtype: rounded(value) for dtype, value in best.flops.items()},
            "memory": rounded(best.memory),
            "cache": rounded(best.cache),
        },
        "results": list(rows),
    }


def merged(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return one record of several of the same machine, in the order they were measured.

    The load is that before the first; the limits are the best that were seen.
    """
    first, *others = records
    best = first["limits"]
    for other in others:
        first["results"] += other["results"]
        first["skipped"] = other["skipped"] | first["skipped"]
        for key in ("memory", "cache"):
            best[key] = max(best[key], other["limits"][key])
        for dtype, flops in other["limits"]["flops"].items():
            best["flops"][dtype] = max(best["flops"].get(dtype, 0.0), flops)
    return first


def failures(record: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the rows in which a peer failed, by the peer and the reason."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in record["results"]:
        for name, reason in each.get("failed", {}).items():
            found.setdefault((name, reason), []).append(each)
    return found


def to_text(record: dict[str, Any]) -> str:
    """Return the record as JSON, a row of results a line."""
    head = {key: value for key, value in record.items() if key != "results"}
    lines = ",\n".join(json.dumps(result) for result in record["results"])
    return json.dumps(head, indent=1)[:-2] + f',\n "results": [\n{lines}\n]}}\n'


def read(path: Path) -> dict[str, Any]:
    """Return the record of a file.

    Raises
    ------
    ValueError
        When it is no such record.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a record of fastbp bench, format {FORMAT}")
    return content


def speed(result: dict[str, Any], name: str) -> float:
    """Return the floating-point operations a second of an implementation in a row."""
    return float(result["flops"] / result["medians"][name])


def share(result: dict[str, Any], limits: dict[str, Any], name: str = "fastbp") -> float:
    """Return the share of what the processor allows at so many operations for each byte."""
    intensity = result["flops"] / result["bytes"]
    roof = min(limits["flops"][result["dtype"]], intensity * limits["cache"])
    return speed(result, name) / (result["threads"] * roof)


def score(results: Iterable[dict[str, Any]], name: str) -> tuple[int, int, int, float]:
    """Return how often fastbp won against one, was even and lost, and the geometric mean."""
    ratios = [result["ratios"][name] for result in results if name in result["ratios"]]
    verdicts = [verdict(ratio) for ratio in ratios]
    mean = statistics.geometric_mean(ratios) if ratios else float("nan")
    return verdicts.count("+"), verdicts.count("="), verdicts.count("-"), mean


def verdict(ratio: float) -> str:
    """Return + where fastbp wins, - where it loses, = within 5 %."""
    return "+" if ratio > 1.05 else "-" if ratio < 0.95 else "="
