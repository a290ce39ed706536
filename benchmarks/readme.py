"""Tables in the README, each between two marks that bear its name."""

from __future__ import annotations

from pathlib import Path


def write_table(path: Path, name: str, table: str) -> None:
    """Put a table in the place of the one of this name."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
