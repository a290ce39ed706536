"""The picture of a record: how many times as long others take, and the roofline.

Needs the extra ``plot``.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_atomically
from .tables import shape_text

COLORS = {
    "reference": "#9498a0",
    "numerical": "#d8b365",
    "torch": "#ff725c",
    "torch.compile": "#c23b22",
    "jax": "#6cc5b0",
    "sklearn": "#efb118",
    "tinygrad": "#a463f2",
}
OURS = "#4269d0"
# What `--plot` can write.
ENDINGS = (".svg", ".png", ".pdf")


def digest(record: dict[str, Any]) -> str:
    """Return what tells a record's picture from another's; it is written into the file."""
    text = json.dumps(record, sort_keys=True)
    return f"fastbp bench {hashlib.sha256(text.encode()).hexdigest()[:32]}"


def write(record: dict[str, Any], path: Path) -> None:
    """Draw a record; the file's ending names the format.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    results = [r for r in record["results"] if "fastbp" in r["medians"] and r["ratios"]]
    height = 1.5 + 0.32 * max(12, len(results))
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _bars(left, results)
    _roofline(right, results, record["limits"])
    content = io.BytesIO()
    kind = path.suffix[1:].lower()
    key = "Subject" if kind == "pdf" else "Description"
    metadata: dict[str, Any] = {key: digest(record)}
    if kind != "png":
        metadata["CreationDate" if kind == "pdf" else "Date"] = None
    # Text as text, and nothing that differs from run to run but what was measured.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastbp"}):
        figure.savefig(content, format=kind, metadata=metadata, dpi=100)
    text = content.getvalue()
    if kind == "svg":  # lines that end with a space are matplotlib's
        text = b"\n".join(each.rstrip() for each in text.splitlines()) + b"\n"
    write_atomically(path, text)


def _bars(axes: Any, results: list[dict[str, Any]]) -> None:
    """Draw a point for each implementation, on a line for each row of the table."""
    names = [name for name in COLORS if any(name in r["ratios"] for r in results)]
    thickness = 0.8 / max(1, len(names))
    for i, name in enumerate(names):
        rows = [(y, r["ratios"][name]) for y, r in enumerate(results) if name in r["ratios"]]
        places, ratios = np.array(rows).T
        shift = (i - (len(names) - 1) / 2) * thickness
        axes.barh(
            places + shift, ratios - 1, thickness, left=1, color=COLORS[name], label=name
        )  # fmt: skip
    axes.axvline(1, color=OURS, linewidth=1.5)
    labels = [
        f"{r['operation']}, {shape_text(r['shape'])}, {r['dtype']}"
        + (f", {r['threads']} thr" if r["threads"] > 1 else "")
        for r in results
    ]
    axes.set_yticks(range(len(results)), labels, fontsize=7)
    axes.set(
        xscale="log", ylim=(len(results) - 0.5, -0.5),
        xlabel="times as long as fastbp (left of the line, fastbp is slower)",
        title="fastbp and others",
    )  # fmt: skip
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _roofline(axes: Any, results: list[dict[str, Any]], limits: dict[str, Any]) -> None:
    """Draw the share of the peak over the arithmetic intensity, NumPy's and fastbp's."""
    known = [r for r in results if r["flops"] and r["bytes"]]
    intensity = np.array([r["flops"] / r["bytes"] for r in known] or [1.0])
    x = np.geomspace(min(0.05, intensity.min() / 2), max(500.0, 2 * intensity.max()), 100)
    for dtype, style in (("float32", "-"), ("float64", ":")):
        peak, cache = limits["flops"][dtype], limits["cache"]
        roof = f"roof, {dtype}: {peak / 1e9:.0f} GF/s, {cache / 1e9:.0f} GB/s"
        axes.plot(
            x, 100 * np.minimum(1, x * cache / peak), style, color="#555555", linewidth=1,
            label=roof,
        )  # fmt: skip
    for name, color, marker in (("reference", COLORS["reference"], "x"), ("fastbp", OURS, "o")):
        points = [
            (
                r["flops"] / r["bytes"],
                100 * r["flops"] / r["medians"][name] / r["threads"] / limits["flops"][r["dtype"]],
            )
            for r in known
            if name in r["medians"]
        ]
        if points:
            axes.plot(*np.array(points).T, marker, color=color, markersize=5, label=name)
    axes.set(
        xscale="log", yscale="log",
        xlabel="floating-point operations for each byte read or written",
        ylabel="share of the processor's peak, %", title="Roofline",
    )  # fmt: skip
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
