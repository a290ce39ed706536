"""Tables of a record: for the terminal, line by line, and for the README, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .machine import QUIET_LOAD
from .results import failures, score, share, verdict

LEGEND = (
    "Beside each: how many times as long as fastbp it takes (of memory: how many times as much); "
    "+ fastbp wins, - it loses, = within 5 %, . it has no such operation.\n"
    "Of roof: the share of what the processor allows for so much arithmetic on so many bytes; "
    "zeros that are skipped count as work done.\n"
    "A kernel by itself writes into arrays that are there already; NumPy beside it makes new ones."
)
# In the place of a ratio, where an implementation raises an error.
FAILS = "fails"
OPERATION, SHAPE, DTYPE, CELL = 42, 22, 8, 12


def shape_text(shape: Sequence[int]) -> str:
    """Return ``100 x 784-50-10`` for a network, ``1000 x 50`` for a matrix."""
    if len(shape) > 3:
        return f"{shape[0]} x {'-'.join(map(str, shape[1:]))}"
    return " x ".join(map(str, shape))


def amount(value: float, unit: str) -> str:
    """Return seconds or bytes with a unit that suits them."""
    if unit == "B":
        return f"{value / 2**20:,.0f} MB"
    # The digits that are shown choose the unit: 999.6 µs are 1 ms.
    shown = float(f"{value:.3g}")
    for scale, name in ((1.0, "s"), (1e-3, "ms")):
        if shown >= scale:
            return f"{shown / scale:,.3g} {name}" if shown < 1000 * scale else f"{value:,.0f} s"
    return f"{shown / 1e-6:,.3g} µs"


def ratio_text(ratio: float) -> str:
    """Return a ratio with two or three digits."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"


def heading(names: Sequence[str]) -> str:
    """Return the first line of the table."""
    others = [name for name in names if name != "fastbp"]
    cells = "".join(f"{name:>{CELL + 2}}" for name in others)
    return (
        f"{'operation':<{OPERATION}}{'shape':<{SHAPE}}{'type':<{DTYPE}} thr{'fastbp':>{CELL}}"
        f"{'of roof':>9}{cells}"
    )


def line(result: dict[str, Any], names: Sequence[str], limits: dict[str, Any]) -> str:
    """Return a row of the table: a dot for no such operation, a word for one that fails."""
    part = ""
    if result["flops"] and result["bytes"] and "fastbp" in result["medians"]:
        part = f"{100 * share(result, limits):.0f} %"
    ours = result["medians"].get("fastbp")
    text = (
        f"{result['operation']:<{OPERATION}}{shape_text(result['shape']):<{SHAPE}}"
        f"{result['dtype']:<{DTYPE}}{result['threads']:>4}"
        f"{amount(ours, result['unit']) if ours else '.':>{CELL}}{part:>9}"
    )
    for name in names:
        if name == "fastbp":
            continue
        ratio = result["ratios"].get(name)
        nothing = FAILS if name in result.get("failed", {}) else ".  "
        cell = f"{ratio_text(ratio)}x {verdict(ratio)}" if ratio else nothing
        text += f"{cell:>{CELL + 2}}"
    return text


def about(record: dict[str, Any]) -> str:
    """Return versions, processor and date in a line."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"{versions}; {record['processor']}; {record['date']}"


def summary(record: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each implementation: won, even, lost; who was left out, who failed where."""
    for name in names:
        won, even, lost, mean = score(record["results"], name)
        if won + even + lost:
            counts = f"{won} won, {even} even, {lost} lost"
            yield f"against {name}: {counts}; {ratio_text(mean)}x on average"
    for name, reason in record["skipped"].items():
        yield f"{name} is left out: {reason}"
    yield from _failures(record)


def _failures(record: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each peer and error: the first case, and how many more."""
    for (name, reason), rows in failures(record).items():
        first, *others = rows
        parts = [first["operation"], shape_text(first["shape"]), first["dtype"]]
        parts.append(f"{first['threads']} thr")
        case = ", ".join(filter(None, parts))
        more = f" and {len(others)} more" if others else ""
        yield f"{name} fails at {case}{more}: {reason}"


# --- the README ----------------------------------------------------------------------------------

COLUMNS = {
    "reference": "NumPy",
    "numerical": "numerical",
    "torch": "PyTorch",
    "jax": "JAX",
    "sklearn": "scikit-learn",
}


def markdown(record: dict[str, Any]) -> str:
    """Return the README's table: wins bold, losses in italics."""
    results = record["results"]
    names = [
        n for n in COLUMNS if any(n in r["ratios"] or n in r.get("failed", {}) for r in results)
    ]
    lines = [
        f"| | type | fastbp | {' | '.join(COLUMNS[name] for name in names)} |",
        f"|---|---|--:|{'--:|' * len(names)}",
    ]
    for result in results:
        cells = [_cell(result, name) for name in names]
        title = f"{result['operation']}, {shape_text(result['shape'])}"
        title += f", {result['threads']} threads" if result["threads"] > 1 else ""
        ours = amount(result["medians"]["fastbp"], result["unit"])
        lines.append(f"| {title} | {result['dtype']} | {ours} | {' | '.join(cells)} |")
    versions = ", ".join(
        f"{name} {number}" for name, number in record["versions"].items() if number != "missing"
    )
    left_out = "".join(f" {name} is left out: {why}." for name, why in record["skipped"].items())
    left_out += "".join(f" {each}." for each in _failures(record))
    busy = f" The machine was busy: load {record['load']}." if is_busy(record) else ""
    lines += ["", f"{versions}; {record['processor']}; {record['date']}.{left_out}{busy}"]
    return "\n".join(lines)


def is_busy(record: dict[str, Any]) -> bool:
    """Tell whether others were using the machine when it was measured."""
    return bool(record["load"] > QUIET_LOAD)


def _cell(result: dict[str, Any], name: str) -> str:
    ratio = result["ratios"].get(name)
    if ratio is None:
        return FAILS if name in result.get("failed", {}) else ""
    text = f"{ratio_text(ratio)}x"
    return {"+": f"**{text}**", "=": text, "-": f"_{text}_"}[verdict(ratio)]
