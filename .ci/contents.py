"""What is in the wheel and in the sdist, and nothing else: ``python .ci/contents.py dist``.

The wheel is the package's files as they lie in the repository, byte by byte, and what describes it;
the sdist those of the folders and files named below.  No file of another kind, none large, no data
but the digits.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

LARGEST = 200_000  # bytes
SUFFIXES = {".py", ".typed", ".md", ".toml", ".json", ".svg", ".png", ".txt"}
# The only data, and files whose names have no suffix.
ALLOWED = {"fastbp/dataset/digits.npz", "LICENSE", "PKG-INFO", ".gitignore"}

PACKAGE = ("fastbp/",)
SOURCES = ("fastbp/", "tests/", "benchmarks/", "docs/", "examples/")
SOURCE_FILES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "asv.conf.json",
    "pyproject.toml",
    ".gitignore",
}
DESCRIPTION = {
    "METADATA",
    "RECORD",
    "WHEEL",
    "entry_points.txt",
    "licenses/LICENSE",
    "licenses/fastbp/dataset/DIGITS-LICENSE.txt",
}


def tracked(root: Path) -> set[str]:
    """Return the files of the repository, or without git all that look like its own."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, nobody's words
            command, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return {p.as_posix() for p in paths if "__pycache__" not in p.parts}
    return {name for name in done.stdout.split("\0") if name}


def wheel_files(path: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sdist_files(path: Path) -> dict[str, bytes]:
    """Return the files of an sdist, without the folder they are all in."""
    with tarfile.open(path) as archive:
        strange = [m.name for m in archive if not (m.isfile() or m.isdir())]
        if strange:
            raise ValueError(f"neither files nor folders: {strange}")
        members = [m for m in archive if m.isfile()]
        return {m.name.partition("/")[2]: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def complaints(found: dict[str, bytes], expected: set[str], root: Path) -> list[str]:
    """Return what is wrong with an archive's files: name to content, against names expected."""
    wrong = [f"missing: {name}" for name in sorted(expected - found.keys())]
    wrong += [f"not expected: {name}" for name in sorted(found.keys() - expected)]
    for name, content in found.items():
        if len(content) > LARGEST:
            wrong.append(f"{len(content):,} bytes, more than {LARGEST:,}: {name}")
        described = ".dist-info/" in name
        if not described and name not in ALLOWED and PurePosixPath(name).suffix not in SUFFIXES:
            wrong.append(f"a kind of file that is not on the list: {name}")
        if (root / name).is_file() and (root / name).read_bytes() != content:
            wrong.append(f"not as in the repository: {name}")
    return wrong


def check_wheel(path: Path, root: Path = ROOT) -> list[str]:
    """Return what is wrong with a wheel."""
    name, version, *_ = path.name.split("-")
    described = {f"{name}-{version}.dist-info/{part}" for part in DESCRIPTION}
    return complaints(
        wheel_files(path), {n for n in tracked(root) if n.startswith(PACKAGE)} | described, root
    )


def check_sdist(path: Path, root: Path = ROOT) -> list[str]:
    """Return what is wrong with an sdist."""
    expected = {n for n in tracked(root) if n.startswith(SOURCES) or n in SOURCE_FILES}
    return complaints(sdist_files(path), expected | {"PKG-INFO"}, root)


def main(folder: str) -> int:
    """Check the one wheel and the one sdist of a folder; returns the exit code."""
    (wheel,), (sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
    wrong = [f"{wheel.name}: {text}" for text in check_wheel(wheel)]
    wrong += [f"{sdist.name}: {text}" for text in check_sdist(sdist)]
    print("\n".join(wrong))
    for path, files in ((wheel, wheel_files(wheel)), (sdist, sdist_files(sdist))):
        print(f"{path.name}: {len(files)} files, {sum(map(len, files.values())):,} bytes")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
