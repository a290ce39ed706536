"""docs/accuracy.md, and lines for the terminal, from what ``benchmarks.accuracy`` measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Record = dict[str, Any]
Line = dict[str, Any]

NAMES = ("fastbp", "NumPy", "PyTorch", "JAX")
PACKAGES = {"NumPy": "numpy", "PyTorch": "torch", "JAX": "jax"}

# What is promised: (what, unit, type, figure).  tests/test_accuracy.py holds fastbp to them.
PROMISES: list[tuple[str, str, str, float]] = [
    ("exp", "ULP", "float32", 1.0),
    ("log", "ULP", "float32", 1.0),
    ("sigmoid, normal results", "ULP", "float32", 2.0),
    ("sigmoid, subnormal results", "ULP", "float32", 1.0),
    ("a row of log-softmax, through the loss", "2⁻²³·max(1, abs(exact))", "float32", 2.0),
    ("exp", "ULP", "float64", 1.0),
    ("log", "ULP", "float64", 1.0),
    ("sigmoid", "ULP", "float64", 2.0),
    ("gradients, against the reference", "relative", "float64", 1e-12),
    ("gradients, against central differences", "relative", "float64", 1e-7),
]


def upwards(number: float) -> str:
    """Write a number with three decimals, none of which is rounded down."""
    if math.isinf(number):
        return "infinite"
    if number and (number < 0.001 or number >= 1000):
        return f"{number:.1e}"
    return f"{math.ceil(number * 1000) / 1000:.3f}"


def place(number: float, dtype: str) -> str:
    """Write the argument of an error with as many digits as its type needs."""
    return str(np.dtype(dtype).type(number))


def figures(record: Record) -> list[float]:
    """Return fastbp's largest errors, in the order of ``PROMISES``."""
    lines = [line for line in record["results"] if line.get("implementation") == "fastbp"]

    def ulp(function: str, dtype: str, kinds: tuple[str, ...] = ("normal", "subnormal")) -> float:
        chosen = [n for n in lines if (n.get("function"), n["dtype"]) == (function, dtype)]
        return max(n[kind][0] for n in chosen for kind in kinds if n[kind])

    def gradients(by: str) -> float:
        chosen = [n for n in record["results"] if n["kind"] == "gradients" and n["by"] == by]
        return max(n["errors"]["fastbp"] for n in chosen if n["dtype"] == "float64")

    rows = [n["row"] for n in lines if n["kind"] == "rows" and n["dtype"] == "float32"]
    return [
        ulp("exp", "float32"),
        ulp("log", "float32"),
        ulp("sigmoid", "float32", ("normal",)),
        ulp("sigmoid", "float32", ("subnormal",)),
        max(rows),
        ulp("exp", "float64"),
        ulp("log", "float64"),
        ulp("sigmoid", "float64"),
        gradients("wider"),
        gradients("central differences"),
    ]


def table(line: Line) -> str:
    """Return a line of the record as one of text."""
    about = f"{line['kind']:10}{line['dtype']:8}"
    if line["kind"] == "number":
        how = "every number" if line["samples"] is None else f"{line['samples']:,} a range"
        return (
            f"{about} {line['function']:8} {line['implementation']:8} ULP "
            f"{_at(line['normal'], line['dtype']):32} subnormal "
            f"{_at(line['subnormal'], line['dtype']):32} ({how}, {line['by']})"
        )
    if line["kind"] == "rows":
        errors = ", ".join(f"{what} {line[what]:.3f}" for what in ("softmax", "row", "loss"))
        return f"{about} within {line['spread']:<4g} {line['implementation']:8} {errors}"
    errors = ", ".join(f"{name} {error:.1e}" for name, error in line["errors"].items())
    return f"{about} {line['network']}, by {line['by']}: {errors}"


def _at(found: list[float] | None, dtype: str) -> str:
    return f"{upwards(found[0])} at {place(found[1], dtype)}" if found else "-"


def _numbers(record: Record, dtype: str, by: str) -> Iterator[str]:
    """The rows of a table of exp, log and the sigmoid."""
    yield "| | | ULP, normal results | where | ULP, subnormal results | where |"
    yield "|---|---|--:|--:|--:|--:|"
    for line in record["results"]:
        if line["kind"] == "number" and (line["dtype"], line["by"]) == (dtype, by):
            cells = []
            for found in (line["normal"], line["subnormal"]):
                cells += [upwards(found[0]), place(found[1], dtype)] if found else ["", ""]
            yield f"| {line['function']} | {line['implementation']} | {' | '.join(cells)} |"


def _rows(record: Record) -> Iterator[str]:
    """The rows of the table of softmax and losses."""
    here = _implementations(record)
    yield f"| | type | logits within | {' | '.join(here)} |"
    yield "|---|---|--:|" + "--:|" * len(here)
    lines = [line for line in record["results"] if line["kind"] == "rows"]
    names = {
        "softmax": "softmax, ULP",
        "row": "a row of log-softmax, in eps·max(1, abs(exact))",
        "loss": "the mean loss of 100 rows, in the same",
    }
    for what, name in names.items():
        groups: dict[tuple[str, float], dict[str, float]] = {}
        for line in lines:
            group = groups.setdefault((line["dtype"], line["spread"]), {})
            group[line["implementation"]] = line[what]
        for (dtype, spread), errors in groups.items():
            cells = " | ".join(upwards(errors[peer]) for peer in here)
            yield f"| {name} | {dtype} | ±{spread:g} | {cells} |"


def _gradients(record: Record) -> Iterator[str]:
    """The rows of the table of gradients."""
    here = _implementations(record)
    yield f"| network | type | compared with | {' | '.join(here)} |"
    yield "|---|---|---|" + "--:|" * len(here)
    for line in record["results"]:
        if line["kind"] == "gradients":
            wider = "80 bits" if line["dtype"] == "float64" else "float64"
            by = line["by"] if line["by"] != "wider" else f"the reference in {wider}"
            cells = " | ".join(f"{line['errors'][peer]:.1e}" for peer in here)
            yield f"| {line['network']} | {line['dtype']} | {by} | {cells} |"


def _implementations(record: Record) -> list[str]:
    found = {line.get("implementation") for line in record["results"]}
    return [name for name in NAMES if name in found]


def _promises(record: Record) -> Iterator[str]:
    yield "| | type | unit | promised | measured | |"
    yield "|---|---|---|--:|--:|---|"
    for (what, unit, dtype, bound), found in zip(PROMISES, figures(record), strict=True):
        promised = f"{bound:g}" if bound < 1e-3 else f"{bound:.1f}"
        held = "reached" if found <= bound else "**missed**"
        yield f"| {what} | {dtype} | {unit} | {promised} | {upwards(found)} | {held} |"


def _samples(record: Record, dtype: str, by: str) -> str:
    for line in record["results"]:
        if line["kind"] == "number" and (line["dtype"], line["by"]) == (dtype, by):
            if line["samples"] is None:
                return "every one of the 2³² numbers"
            return f"{line['samples']:,} random numbers of each range"
    return "nothing"


def page(record: Record) -> str:
    """Return docs/accuracy.md."""
    about = record["machine"]
    versions = [f"fastbp {about['fastbp']}", f"Python {about['python']}", f"Numba {about['numba']}"]
    versions += [f"{name} {about[package]}" for name, package in PACKAGES.items()]
    missing = [name for name in NAMES if name not in _implementations(record)]
    absent = f"  Not installed, so not measured: {', '.join(missing)}." if missing else ""
    return PAGE.format(
        command=record["command"],
        date=record["date"],
        versions=", ".join(versions),
        processor=f"{about['processor']}, {about['cpus']} CPUs",
        absent=absent,
        promises="\n".join(_promises(record)),
        float32="\n".join(_numbers(record, "float32", "wider")),
        float32_samples=_samples(record, "float32", "wider"),
        float64="\n".join(_numbers(record, "float64", "wider")),
        float64_samples=_samples(record, "float64", "wider"),
        mpmath="\n".join(_numbers(record, "float64", "mpmath")),
        mpmath_samples=_samples(record, "float64", "mpmath"),
        rows="\n".join(_rows(record)),
        gradients="\n".join(_gradients(record)),
    )


PAGE = """\
# How exact the results are

Measured, not claimed: this page is written by

```
{command}
```

on {date}; {processor}; {versions}.{absent}
`docs/accuracy.json` keeps the numbers, `tests/test_accuracy.py` compares this page with them, and
fastbp with both on a million inputs.

## What is promised

{promises}

The figures hold where the processor has a fused multiply-add (x86 since 2013, every 64-bit ARM);
without one the exponential's is 1.25 ULP.

## How an error is counted

One ULP, a unit in the last place, is the distance between two neighbouring numbers of the type at
the **exact** result: for 2ᵉ <= |exact| < 2ᵉ⁺¹ it is 2ᵉ⁻²³ in float32 and 2ᵉ⁻⁵² in float64, and for
subnormal results 2⁻¹⁴⁹ and 2⁻¹⁰⁷⁴. The error is |computed - exact| in these units. A correctly
rounded result is wrong by at most 0.5. Infinity counts as the power of two it stands for; NaN in
the wrong place counts as infinitely wrong. Errors of millions of ULP in subnormal results are
results flushed to 0; JAX takes subnormal arguments for 0 too, and the logarithm of one for -inf.

The exact values of float32 are computed in float64, those of float64 in the 80-bit type, each with
11 bits or more to spare (0.0005 ULP), and once more with mpmath at 100 bits. fastbp's exp and log
are those inside its kernels; the others are called as their users call them. NumPy has no sigmoid:
1 / (1 + exp(-x)) stands for it.

## Functions of one number, float32

Over {float32_samples}.

{float32}

## Functions of one number, float64

Over {float64_samples} in `CASES` of `benchmarks/accuracy.py`: all
arguments whose results are neither 0 nor infinite, those near the turning points, and subnormal
ones.

{float64}

Against mpmath at 100 bits, over {mpmath_samples}:

{mpmath}

## Softmax and the loss

Rows of 2, 10 and 1,000 classes, logits evenly distributed; the largest error over all of them.
Whoever subtracts the largest logit makes a rounding error in the difference, and the exponential
turns it into a relative error: so softmax's own error grows with the logits, for everybody. eps is
2⁻²³ for float32, 2⁻⁵² for float64. fastbp adds the losses of a batch in float64, also those of
float32 logits.

{rows}

## Gradients

The largest error of any parameter's gradient, relative to the largest element of that gradient.
The reference is the book's layers in plain NumPy, which share no code with fastbp's, in a wider
type. The central differences are those of a loss computed by NumPy, with the book's h = 10⁻⁴: what
is left is the error of the differences, not of the gradients, as everybody's being equal shows.

{gradients}
"""
