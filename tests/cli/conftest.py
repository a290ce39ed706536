"""Running the command line, in this process or another, away from the user's own data."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import fastbp
from fastbp.cli import main
from fastbp.dataset import mnist


class Outcome(NamedTuple):
    """How a command ended: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def isolation(tmp_path, tmp_path_factory, monkeypatch):
    """Work in an empty folder, see no data of the user's, reach no mirror, keep the threads."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(mnist, "user_cache_dir", lambda: cache)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.delenv("FASTBP_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    threads = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Return a function that runs a command in this process: ``run("train", "--epochs", 1)``."""

    def call(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(run):
    """Return a function that runs a wrong command: exit code 2, and one line that says why."""

    def call(*arguments, says):
        code, out, err = run(*arguments)
        assert code == 2
        assert out == ""
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1
        assert err.startswith("fastbp")
        assert re.search(says, err), err
        return err

    return call


@pytest.fixture
def start(tmp_path):
    """Return a function that starts ``python -m fastbp``: ``start("train", stdout=PIPE)``.

    It sees this fastbp and none of the user's data; what still runs at the end is killed.
    """
    hidden = ("FASTBP_DATA_DIR", "FASTBP_NUM_THREADS", "PYTHONUNBUFFERED", "PYTHONWARNINGS")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    package = str(Path(fastbp.__file__).parents[1])
    inherited |= {"PYTHONPATH": package, "PYTHONIOENCODING": "utf-8"}
    started = []

    def call(*arguments, variables=None, **options):
        program = subprocess.Popen(
            [sys.executable, "-m", "fastbp", *map(str, arguments)],
            env={**inherited, **(variables or {})},
            cwd=tmp_path,
            encoding="utf-8",
            **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options},
        )
        started.append(program)
        return program

    yield call
    for program in started:
        program.kill()
        for pipe in (program.stdout, program.stderr):
            if pipe is not None:
                pipe.close()
        program.wait(timeout=600)


@pytest.fixture
def process(start):
    """Return a function that runs ``python -m fastbp`` to its end."""

    def call(*arguments, timeout=600, **variables):
        program = start(
            *arguments,
            stdout=subprocess.PIPE,
            variables={name: str(value) for name, value in variables.items()},
        )
        out, err = program.communicate(timeout=timeout)
        return Outcome(program.returncode, out, err)

    return call
