"""The README's tables and picture, from what was measured: ``python -m benchmarks.readme``.

    fastbp bench --quick --json benchmarks/results/operations.json
    python -m benchmarks.training --json benchmarks/results/training.json
    python -m benchmarks.readme

``--check`` writes nothing and fails when the README or the picture shows something else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from fastbp.bench import pictures, results, tables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "images" / "speed.svg"
OPERATIONS = ROOT / "benchmarks" / "results" / "operations.json"
TRAINING = ROOT / "benchmarks" / "results" / "training.json"

# Whom the table of training steps names, and how.
TRAINING_COLUMNS = {
    "fastbp": "fastbp",
    "book": "the book, NumPy",
    "sklearn": "scikit-learn",
    "torch": "PyTorch",
    "jax-scan": "JAX, scan",
}


def marks(name: str) -> tuple[str, str]:
    """Return what stands before and after a table."""
    return f"<!-- begin: {name} -->\n", f"\n<!-- end: {name} -->"


def with_table(text: str, name: str, table: str) -> str:
    """Return the text with a table in the place of the one of this name."""
    begin, end = marks(name)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{table}{end}{after}"


def training_table(record: dict[str, Any]) -> str:
    """Return the table of training steps, in Markdown."""
    groups: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for result in record["results"]:
        if "us" in result and not result["plain"]:
            key = result["title"], result["threads"]
            groups.setdefault(key, {})[result["runner"]] = result
    lines = [
        f"| µs a step | threads | {' | '.join(TRAINING_COLUMNS.values())} |",
        f"|---|--:|{'--:|' * len(TRAINING_COLUMNS)}",
    ]
    for (title, threads), runners in groups.items():
        cells = []
        for name in TRAINING_COLUMNS:
            if name not in runners:
                cells.append("")
                continue
            ratio = runners[name]["over fastbp"]
            beside = f" ({ratio:.1f}x)" if name != "fastbp" else ""
            cells.append(f"{statistics.median(runners[name]['us']):,.0f}{beside}")
        lines.append(f"| {title} | {threads} | {' | '.join(cells)} |")
    about = ", ".join(f"{key} {value}" for key, value in record["machine"].items())
    return "\n".join([*lines, "", f"{about}; {record['date']}."])


def rendered(text: str) -> str:
    """Return the README with the tables of what was measured."""
    training = json.loads(TRAINING.read_text(encoding="utf-8"))
    text = with_table(text, "training", training_table(training))
    return with_table(text, "table", tables.markdown(results.read(OPERATIONS)))


def is_true() -> list[str]:
    """Return what is not as measured: nothing, or the names of files."""
    record = results.read(OPERATIONS)
    text = README.read_text(encoding="utf-8")
    wrong = [] if rendered(text) == text else [README.name]
    picture = PICTURE.read_text(encoding="utf-8") if PICTURE.exists() else ""
    return wrong + ([] if pictures.digest(record) in picture else [PICTURE.name])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is not as measured")
    options = parser.parse_args(arguments)
    if not options.check:
        README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
        pictures.write(results.read(OPERATIONS), PICTURE)
    wrong = is_true()
    print("\n".join(f"{name} is not as measured" for name in wrong) or "all is as measured")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
