"""Commits of a repository, each built into a virtual environment of its own."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path


class Refused(Exception):  # noqa: N818 - the question cannot be answered
    """The commits cannot be compared; says why in a line."""


def resolve(revision: str, folder: Path) -> tuple[Path, str, str]:
    """Return the repository, the commit that a revision names, and that of HEAD.

    Raises
    ------
    Refused
        Outside a repository, for an unknown revision, and for changes that are not committed.
    """
    root = Path(git("rev-parse", "--show-toplevel", folder=folder).decode().strip())
    try:
        name = f"{revision}^{{commit}}"
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", name, folder=root)
    except Refused as error:
        if "not installed" in str(error):
            raise
        raise Refused(f"{revision!r} names no commit") from error
    if git("status", "--porcelain", "--untracked-files=no", folder=root).strip():
        raise Refused("the working tree has changes that are not committed")
    head = git("rev-parse", "HEAD", folder=root)
    return root, commit.decode().strip(), head.decode().strip()


def build(root: Path, commit: str, folder: Path) -> Path:
    """Build and install a commit, and what it needs, with the cases of this tree in place of its.

    Parameters
    ----------
    root : Path
        The repository.
    commit : str
    folder : Path
        New; gets the source and the environment.

    Returns
    -------
    Path
        The environment's Python.

    Raises
    ------
    Refused
        When it cannot be built.
    """
    source, environment = folder / "source", folder / "environment"
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit, folder=root))) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(source, filter="data")
        else:
            # git's own archive of our own files
            tar.extractall(source)  # noqa: S202  # nosec B202
    what = f"{commit[:10]} cannot be built"
    _run([sys.executable, "-m", "venv", str(environment)], what)
    windows = os.name == "nt"
    python = environment / ("Scripts/python.exe" if windows else "bin/python")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, str(source)], what)
    home = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], what)
    cases = Path(home.decode().strip()) / "fastbp" / "bench"
    shutil.rmtree(cases, ignore_errors=True)
    shutil.copytree(Path(__file__).parent, cases, ignore=shutil.ignore_patterns("__pycache__"))
    return python


def git(*arguments: str, folder: Path) -> bytes:
    """Run git in a folder; return what it printed.

    Raises
    ------
    Refused
        When there is no git, or it fails.
    """
    program = shutil.which("git")
    if program is None:
        raise Refused("git is not installed")
    return _run([program, "-C", str(folder), *arguments], f"git {arguments[0]}")


def clean_environment() -> dict[str, str]:
    """Return an environment in which a Python finds only what is installed beside it."""
    found = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    return {**found, "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}


def _run(command: list[str], what: str) -> bytes:
    done = subprocess.run(  # noqa: S603 - our own arguments
        command, capture_output=True, check=False, env=clean_environment()
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        errors = [line for line in said if line.lower().startswith(("error", "fatal"))]
        raise Refused(f"{what}: {(errors or said or ['it failed'])[0]}")
    return done.stdout
