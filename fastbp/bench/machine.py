"""Whom fastbp is compared with, what of them is installed, and what the numbers depend on."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import fastbp

# Every implementation, with the package it needs.
PACKAGES = {
    "reference": "numpy",
    "numerical": "numpy",
    "fastbp": "fastbp",
    "torch": "torch",
    "torch.compile": "torch",
    "jax": "jax",
    "sklearn": "sklearn",
    "tinygrad": "tinygrad",
}

# Those that compile for many seconds before a case can be timed are asked for by name.
ON_REQUEST = ("torch.compile",)

# Names of packages where they are installed under another.
DISTRIBUTIONS = {"sklearn": "scikit-learn"}

# More runnable processes than this, before anything begins, and the times are not to be trusted.
QUIET_LOAD = 0.5


class Unavailable(Exception):  # noqa: N818 - nothing is wrong
    """An implementation cannot take part here; says why."""


class Disagreement(Exception):  # noqa: N818 - a result, that must stop a comparison
    """An implementation gave another result than it must: says which and how far off."""


def missing(implementation: str) -> str | None:
    """Return what an implementation lacks here, or None."""
    package = PACKAGES[implementation]
    if find_spec(package) is None:
        return f"{package} is not installed"
    compilers = {"torch.compile": ("c++", "g++", "clang++"), "tinygrad": ("clang",)}
    wanted = compilers.get(implementation, ())
    if wanted and os.name == "posix" and not any(map(shutil.which, wanted)):
        return f"it needs the compiler {wanted[0]}"
    return None


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part, 'missing' for what is not installed."""
    found = {"fastbp": fastbp.__version__, "python": platform.python_version()}
    for package in ("numpy", "numba", *dict.fromkeys(PACKAGES.values())):
        if package in found:
            continue
        try:
            found[package] = version(DISTRIBUTIONS.get(package, package))
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def processor() -> str:
    """Return the processor and the number of its CPUs that the system has."""
    import llvmlite.binding as llvm  # here: the processes of others should not carry it

    return f"{llvm.get_host_cpu_name()}, {os.cpu_count()} CPUs"


def load() -> float:
    """Return the average number of runnable processes of the last minute, 0 where unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
