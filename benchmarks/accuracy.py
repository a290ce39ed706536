"""How exact the results are: ``python -m benchmarks.accuracy [--all] [--page docs/accuracy.md]``.

The largest errors of exp, log and the sigmoid in units in the last place (ULP) of the exact
result; of softmax, of single rows of log-softmax and of the mean loss; and of gradients.  fastbp,
NumPy and, where they are installed, PyTorch and JAX, all measured alike.  ``--all`` takes every one
of the 2**32 numbers of float32 for the functions of one number: about ten minutes.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fastbp import reference

from .accuracy_page import page, table
from .accuracy_peers import Numpy, installed
from .training import machine
from .ulp import CHUNK, Array, Worst, by_mpmath, every_float32, samples, two_parts, ulps

MPMATH_BITS = 100
HAS_WIDER = bool(np.finfo(np.longdouble).nmant >= 63)


class Case(NamedTuple):
    """A function of one number, its exact values, and between which arguments to draw samples."""

    exactly: Callable[[Any, Any], Any]  # of mpmath and a number of its own
    ranges: dict[str, list[tuple[float, float]]]
    even_exponents: bool = False  # every power of two as often as the next, not every value


CASES = {
    "exp": Case(
        lambda mpmath, x: mpmath.exp(x),
        {
            "float32": [(-104, 89), (-1, 1), (-104, -87.3)],
            "float64": [(-745.2, 710), (-1, 1), (-745.2, -708.3)],
        },
    ),
    "log": Case(
        lambda mpmath, x: mpmath.log(x),
        {
            "float32": [(0.5, 2), (0.99, 1.01), (0, 3.4e38), (0, 1.2e-38)],
            "float64": [(0.5, 2), (0.99, 1.01), (0, 1.7e308), (0, 2.3e-308)],
        },
        even_exponents=True,
    ),
    "sigmoid": Case(
        lambda mpmath, x: 1 / (1 + mpmath.exp(-x)),
        {
            "float32": [(-104, 20), (-4, 1), (-104, -87.3)],
            "float64": [(-745.2, 40), (-4, 1), (-745.2, -708.3)],
        },
    ),
}


def measure(
    name: str, dtype: str, count: int | None, peers: dict[str, Any], by: str = "wider"
) -> dict[str, Worst]:
    """Find everybody's largest errors over samples, or without count over every float32.

    ``by`` is where the exact values come from: ``wider``, float64 for float32 and the 80-bit type
    for float64; or ``mpmath``.
    """
    case = CASES[name]
    wide = np.float64 if dtype == "float32" else np.longdouble
    exact = getattr(Numpy(), name)
    if count is None:
        chunks, total = every_float32(), 2**32 // CHUNK
    else:
        chunks = samples(case.ranges[dtype], dtype, count, case.even_exponents)
        total = -(-count // CHUNK) * len(case.ranges[dtype])
    worst = {peer: Worst() for peer in peers}
    with np.errstate(all="ignore"):
        for x in tqdm(chunks, f"{name} {dtype}", total, leave=False, unit="chunk", mininterval=2):
            if by == "mpmath":
                high, low = by_mpmath(case.exactly, x, MPMATH_BITS)
            else:
                high, low = two_parts(exact(x.astype(wide)))
            for peer, functions in peers.items():
                worst[peer].add(x, getattr(functions, name)(x), high, low)
    return worst


# --- softmax and the loss ------------------------------------------------------------------------

SPREADS = (1.0, 10.0, 80.0)  # logits between -spread and spread
CLASSES = (2, 10, 1000)
BATCH = 100


def measure_rows(dtype: str, spread: float, rows: int, peers: dict[str, Any]) -> dict[str, Any]:
    """Find everybody's largest errors of softmax, of a row's loss and of a batch's.

    Of softmax in ULP, of the results that are normal numbers; of losses in units of
    ``eps * max(1, |exact|)``, eps being 2**-23 or 2**-52.
    """
    random = np.random.default_rng(1)
    wide = np.float64 if dtype == "float32" else np.longdouble
    info = np.finfo(dtype)
    worst = {peer: {"softmax": 0.0, "row": 0.0, "loss": 0.0} for peer in peers}

    def note(peer: str, what: str, error: Any) -> None:
        worst[peer][what] = max(worst[peer][what], float(error))

    def units(actual: Any, exact: Array) -> float:
        differences = np.abs(np.asarray(actual).astype(wide) - exact)
        return float(np.max(differences / (info.eps * np.maximum(1, np.abs(exact)))))

    for C in CLASSES:
        # As many rows of a thousand classes as make a tenth of the work.
        for start in range(0, max(rows // max(C // 10, 1), BATCH), BATCH):
            a = random.uniform(-spread, spread, (BATCH, C)).astype(dtype)
            t = random.integers(C, size=BATCH)
            exact = Numpy().row_losses(a.astype(wide), t)
            y = reference.softmax(a.astype(wide)) if start < rows // 10 else None
            for peer, functions in peers.items():
                note(peer, "row", units(functions.row_losses(a, t), exact))
                note(peer, "loss", units(functions.loss(a, t), exact.mean()))
                if y is not None:
                    errors = ulps(functions.softmax(a), y)
                    note(peer, "softmax", errors[y >= info.smallest_normal].max())
    return worst


# --- gradients -----------------------------------------------------------------------------------

# sizes, activation, rows: those of few rows go layer by layer, the others through compiled steps
NETWORKS = [
    ((784, 50, 10), "relu", 100),
    ((784, 50, 10), "sigmoid", 100),
    ((784, 512, 256, 10), "relu", 64),
    ((64, 50, 10), "relu", 3),
    ((64, 30, 30, 30, 10), "sigmoid", 20),
]
# Small enough for a difference of two losses for every parameter.
SMALL = [((12, 7, 5), "relu", 5), ((12, 7, 5), "sigmoid", 5), ((12, 9, 8, 5), "relu", 20)]


def problem(sizes: tuple[int, ...], rows: int, dtype: str) -> tuple[dict[str, Array], Array, Array]:
    """Return parameters, inputs and labels, the same for everybody."""
    random = np.random.default_rng(2)
    params = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
        params[f"W{i}"] = random.normal(0, fan_in**-0.5, (fan_in, fan_out)).astype(dtype)
        params[f"b{i}"] = random.normal(0, 0.1, fan_out).astype(dtype)
    x = random.normal(0, 1, (rows, sizes[0])).astype(dtype)
    return params, x, random.integers(sizes[-1], size=rows)


def relative(actual: dict[str, Array], exact: dict[str, Array]) -> float:
    """Return the largest error of any parameter's gradient, relative to its largest element."""
    return max(
        float(np.abs(actual[name] - value).max() / np.abs(value).max())
        for name, value in exact.items()
    )


def measure_gradients(dtype: str, peers: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Compare everybody's gradients with those of the book's layers in a wider type.

    Yields
    ------
    (str, dict)
        The network, and everybody's relative error.
    """
    wide = np.longdouble if dtype == "float64" else np.float64
    for sizes, activation, rows in NETWORKS:
        params, x, t = problem(sizes, rows, dtype)
        wider = {name: value.astype(wide) for name, value in params.items()}
        exact = Numpy().gradients(wider, x.astype(wide), t, activation)
        found = {
            peer: relative(functions.gradients(params, x, t, activation), exact)
            for peer, functions in peers.items()
        }
        yield f"{'-'.join(map(str, sizes))} {activation}, {rows} rows", found


def measure_differences(peers: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Compare everybody's gradients in float64 with central differences of the reference's loss.

    Yields
    ------
    (str, dict)
        The network, and everybody's relative difference.
    """
    for sizes, activation, rows in SMALL:
        params, x, t = problem(sizes, rows, "float64")
        moved = {name: value.copy() for name, value in params.items()}
        hidden = getattr(reference, activation)

        def loss(_: Array, moved: Any = moved, x: Array = x, t: Array = t, f: Any = hidden) -> Any:
            y, depth = x, len(moved) // 2
            for i in range(1, depth + 1):
                y = y @ moved[f"W{i}"] + moved[f"b{i}"]
                y = f(y) if i < depth else y
            return Numpy().loss(y, t)

        exact = {name: reference.numerical_gradient(loss, value) for name, value in moved.items()}
        found = {
            peer: relative(functions.gradients(params, x, t, activation), exact)
            for peer, functions in peers.items()
        }
        yield f"{'-'.join(map(str, sizes))} {activation}, {rows} rows", found


# --- the command ---------------------------------------------------------------------------------


def run(given: argparse.Namespace, peers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure everything asked for; yields one line of the record after the other."""
    for dtype in [given.dtype] if given.dtype else ["float32", "float64"]:
        count = None if given.all and dtype == "float32" else given.samples
        oracles: list[tuple[str, int | None]] = [("wider", count)]
        if dtype == "float64":
            oracles = [("wider", count)] if HAS_WIDER else []
            if find_spec("mpmath"):
                oracles.append(("mpmath", max(given.samples // 200, 100)))
            else:
                print("mpmath is not installed: float64 is not compared with it")
        for name in [given.only] if given.only in CASES else CASES if not given.only else []:
            for by, number in oracles:
                about = {"kind": "number", "function": name, "dtype": dtype, "by": by}
                about["samples"] = number
                for peer, worst in measure(name, dtype, number, peers, by).items():
                    yield about | {"implementation": peer} | worst.record()
        if dtype == "float64" and not HAS_WIDER:
            print("float64: this platform has no wider type, so no softmax, losses and gradients")
            continue
        if given.only in (None, "rows"):
            for spread in SPREADS:
                about = {"kind": "rows", "dtype": dtype, "spread": spread}
                for peer, errors in measure_rows(dtype, spread, given.rows, peers).items():
                    yield about | {"implementation": peer} | errors
        if given.only in (None, "gradients"):
            about = {"kind": "gradients", "dtype": dtype, "by": "wider"}
            for network, errors in measure_gradients(dtype, peers):
                yield about | {"network": network, "errors": errors}
            about["by"] = "central differences"
            for network, errors in measure_differences(peers) if dtype == "float64" else []:
                yield about | {"network": network, "errors": errors}


def put(results: list[dict[str, Any]], line: dict[str, Any]) -> None:
    """Put a line of the record in the place of the one that says the same, or behind all."""
    what = ("kind", "function", "dtype", "by", "spread", "network", "implementation")
    for i, old in enumerate(results):
        if all(old.get(key) == line.get(key) for key in what):
            results[i] = line
            return
    results.append(line)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every float32 instead of samples")
    parser.add_argument(
        "--samples", type=int, default=10**6, metavar="N", help="numbers in each range (10**6)"
    )
    parser.add_argument("--rows", type=int, default=10**4, metavar="N", help="rows of logits")
    parser.add_argument("--only", choices=[*CASES, "rows", "gradients"], help="these alone")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="this type alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="take from here what is not measured now"
    )
    parser.add_argument("--from", type=Path, metavar="FILE", dest="kept", help="measure nothing")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write docs/accuracy.md")
    given = parser.parse_args(arguments)
    if given.kept:
        record = json.loads(given.kept.read_text(encoding="utf-8"))
    else:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        options = sys.argv[1:] if arguments is None else arguments
        command = shlex.join(["python", "-m", "benchmarks.accuracy", *options])
        record = {"command": command, "machine": machine(), "date": today, "results": []}
        if given.keep:
            before = json.loads(given.keep.read_text(encoding="utf-8"))
            if before["machine"] != record["machine"]:
                parser.error(f"--keep: {given.keep} is of another machine or of other versions")
            record = before | {"date": today}
        for line in run(given, installed()):
            put(record["results"], line)
            print(table(line), flush=True)
            if given.json:
                given.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if given.page:
        given.page.write_text(page(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
