"""Runs a program in a process of its own: a hang or an abort there is a failed test here."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fastbp

PACKAGE = Path(fastbp.__file__).parent
HANGS_AFTER = 300  # seconds; what is run takes a few


def start(*arguments, package=PACKAGE, **variables):
    """Start Python with this fastbp; variables that are None are taken out of the environment."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent), **variables}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={name: str(value) for name, value in environment.items() if value is not None},
        cwd=package.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # so that its own children can be ended with it
    )


def finish(program, timeout=HANGS_AFTER):
    """Wait for a program; return its output and errors, or fail with them if it hangs."""
    try:
        return program.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        out, err = program.communicate()
        raise AssertionError(f"hangs: {program.args}\n{out}\n{err}") from None


def run(*arguments, package=PACKAGE, **variables):
    """Run a program to its end and return the JSON it printed; fail if it failed."""
    program = start(*arguments, package=package, **variables)
    out, err = finish(program)
    assert program.returncode == 0, f"exit code {program.returncode}\n{out}\n{err}"
    return json.loads(out)
