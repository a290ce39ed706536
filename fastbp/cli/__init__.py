"""The command line: ``fastbp train | check | predict | bench | info | warmup``.

Exit codes: 0, it worked; 1, it ran and failed; 2, it was asked for wrongly, which one line on
stderr explains; 130, interrupted.  Each command is a module with ``add_to(commands)`` and
``run(options)``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .. import __version__
from . import bench, check, info, predict, train, warmup
from .options import CommandFailed, UsageError, obey_environment

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastbp",
        description="Train small neural networks on a CPU, fast.",
        epilog="`fastbp COMMAND --help` explains a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (train, check, predict, bench, info, warmup):
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    SystemExit
        With code 2 for wrong arguments, with 0 after ``--help`` and ``--version``.
    """
    name = "fastbp"
    if sys.stdout is None:  # `fastbp train >&-`
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    formatwarning, warnings.formatwarning = warnings.formatwarning, _plain_warning
    try:
        try:
            options = _parser().parse_args(arguments)
            name = f"fastbp {options.command}"
            obey_environment()
            return int(options.run(options))
        finally:
            sys.stdout.flush()  # while its errors can still be told
            warnings.formatwarning = formatwarning
    except UsageError as error:
        print(_printable(f"{name}: error: {error}"), file=sys.stderr)
        return 2
    except CommandFailed as error:
        print(_printable(f"{name}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output (`fastbp train | head`) has seen enough.
        _discard_output()
        return 0
    except OSError as error:
        print(_printable(f"{name}: {error}"), file=sys.stderr)
        _discard_output()
        return 1


def _plain_warning(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning for people who did not write the code it came from."""
    return _printable(f"fastbp: {message}") + "\n"


def _printable(text: str) -> str:
    """Return a text without what a terminal would obey: parts may come out of a stranger's file."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _discard_output() -> None:
    """Leave nothing to flush when Python ends: it would fail again, with a message of Python's."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
