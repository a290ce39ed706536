"""The checks, one session each: ``nox`` runs them all, ``nox -s tests`` one.

``.ci/run`` runs the same commands in its own virtual environments.
"""

import shutil

import nox

nox.options.sessions = ["lint", "types", "tests", "boundscheck", "python_kernels", "planted_bugs"]


@nox.session
def lint(session):
    """Ruff."""
    session.install("ruff==0.17.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session):
    """Mypy, strict."""
    session.install(".[test]", "mypy==2.4.1")
    session.run("mypy")


@nox.session
def tests(session):
    """The suite, compiled."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def boundscheck(session):
    """The suite with bounds checked in compiled code."""
    session.install(".[test]")
    session.run(
        *("pytest", "-q", "-m", "not mnist"),
        env={"NUMBA_BOUNDSCHECK": "1"},
    )


@nox.session
def python_kernels(session):
    """The kernels as plain Python, with coverage."""
    session.install(".[test]", "pytest-cov")
    session.run(
        *("pytest", "-q", "tests/kernels", "--cov=fastbp.kernels", "--cov-report=term"),
        env={"NUMBA_DISABLE_JIT": "1"},
    )


@nox.session
def planted_bugs(session):
    """Break the package in known ways; the suite must notice each."""
    session.install(".[test]")
    session.run("python", "tests/planted_bugs.py", *session.posargs)


@nox.session
def dashboard(session):
    """Speed over the last commits as web pages, served until Ctrl-C; arguments are handed on."""
    session.install("-e", ".[bench]")
    if shutil.which("npm"):
        session.run("npm", "ci", "--prefix", "benchmarks/web", external=True)
    session.run("python", "-m", "benchmarks.dashboard", *session.posargs)


@nox.session
def speed(session):
    """The table of cases in pytest-benchmark; arguments are handed on."""
    session.install("-e", ".[bench]")
    session.run("pytest", "benchmarks/speed", *session.posargs)
