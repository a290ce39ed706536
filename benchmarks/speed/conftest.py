"""Which cases and implementations are timed."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from fastbp.bench.cases import IMPLEMENTATIONS, all_cases, quick_cases
from fastbp.bench.machine import ON_REQUEST, missing
from fastbp.threads import available_cpus

DEFAULT = [name for name in IMPLEMENTATIONS if name not in ON_REQUEST]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of these benchmarks."""
    group = parser.getgroup("fastbp", "the table of cases")
    group.addoption(
        "--implementations", default=",".join(DEFAULT), metavar="A,B",
        help=f"of {','.join(IMPLEMENTATIONS)} (default: %(default)s)",
    )  # fmt: skip
    group.addoption("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    group.addoption("--all-cases", action="store_true", help="the whole table")
    group.addoption("--long-cases", action="store_true", help="also what takes minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what cannot be timed, and say who is left out."""
    names = config.getoption("implementations").split(",")
    unknown = [name for name in names if name not in IMPLEMENTATIONS]
    if unknown:
        stop(f"--implementations: no {', '.join(unknown)} among {', '.join(IMPLEMENTATIONS)}")
    if not 1 <= config.getoption("threads") <= available_cpus():
        stop(f"--threads: from 1 to {available_cpus()}, the CPUs here")
    if not config.pluginmanager.hasplugin("benchmark"):
        stop("pytest-benchmark is not installed: pip install -e '.[bench]'")


def stop(reason: str) -> NoReturn:
    """End with one line and code 2."""
    pytest.exit(reason, returncode=2)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name who was asked for and is not here."""
    for name in config.getoption("implementations").split(","):
        if reason := missing(name):
            terminalreporter.write_line(f"left out: {name}, {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every case and every implementation of it that is here."""
    if "implementation" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    cases = (all_cases if option("all_cases") else quick_cases)((option("threads"),))
    names = [name for name in option("implementations").split(",") if not missing(name)]
    pairs = [
        pytest.param(case, name, id=f"{case.name}, {name}")
        for case in cases
        if option("long_cases") or not case.long
        for name in names
        if name in case.makers
    ]
    metafunc.parametrize(("case", "implementation"), pairs)
