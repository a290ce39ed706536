"""The checks, one session each: ``nox`` runs them all, ``nox -s tests`` one.

``.ci/run`` runs the same commands in its own virtual environments.
"""

import shutil
from pathlib import Path

import nox

nox.options.sessions = [
    *("lint", "types", "security", "audit", "contents", "sbom"),
    *("tests", "boundscheck", "python_kernels", "planted_bugs"),
]


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
def security(session):
    """Bandit over the code; zizmor and actionlint over the workflows."""
    session.install("bandit==1.9.4", "zizmor==1.32.0")
    session.run("bandit", "-q", "-c", "pyproject.toml", "-r", "fastbp", ".ci")
    session.run("zizmor", "--offline", "--quiet", ".")
    session.run("bash", ".ci/actionlint", external=True)


@nox.session
def audit(session):
    """Known vulnerabilities in fastbp's dependencies and in those of its extras."""
    session.install(".[test,sklearn]", "pip-audit==2.10.1")
    (packages,) = Path(session.virtualenv.location).glob("[Ll]ib*/**/site-packages")
    session.run("python", ".ci/audit.py", str(packages))


@nox.session
def contents(session):
    """What is in the wheel and the sdist, and nothing else."""
    session.install("build==1.6.1")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--quiet", "--outdir", str(dist), ".")
    session.run("python", ".ci/contents.py", str(dist))


@nox.session
def sbom(session):
    """A CycloneDX bill of materials: ``nox -s sbom -- FILE``."""
    session.install("build==1.6.1", "cyclonedx-bom==7.5.0")
    (file,) = session.posargs or ["fastbp.cdx.json"]
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--quiet", "--wheel", "--outdir", str(dist), ".")
    session.run("bash", ".ci/sbom", str(dist), file, external=True)


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
