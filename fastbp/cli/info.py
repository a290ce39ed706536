"""``fastbp info``: versions, the machine, and where things are."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Bits of the widest vector registers, by LLVM's names for what a processor can do.
VECTOR_WIDTHS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "neon": 128}

PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "threadpoolctl",
    "tqdm",
    "pooch",
    "safetensors",
    "pillow",
    "matplotlib",
)


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "info",
        help="versions, processor, threads, folders",
        description="Print versions, processor, threads and folders, for a bug report.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, command="info")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    rows = [*_versions(), *_machine(), *_threads(), *_folders()]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def _versions() -> list[tuple[str, str]]:
    from .. import __version__
    from ..kernels import jit

    lock = (
        "" if jit.has_gil() else ", without the global interpreter lock: fastbp is untested there"
    )
    rows = [("fastbp", __version__), ("Python", platform.python_version() + lock)]
    for package in PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def _machine() -> list[tuple[str, str]]:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    bits = max((b for name, b in VECTOR_WIDTHS.items() if features.get(name)), default=0)
    return [
        ("system", platform.platform()),
        ("processor", f"{llvm.get_host_cpu_name()}, {platform.machine()}"),
        ("vector width", f"{bits} bits" if bits else "unknown"),
    ]


def _threads() -> list[tuple[str, str]]:
    from ..kernels import jit
    from ..threads import available_cpus, blas_info, get_num_threads

    layers = ", ".join(
        f"{pool['internal_api']} {pool['version']} ({pool.get('threading_layer', 'unknown')})"
        for pool in blas_info()
    )
    kernels = jit.threading_layer() or "none"
    if not jit.has_fast_threads():
        kernels += ", so on one thread"
    return [
        ("CPUs", str(available_cpus())),
        ("threads", str(get_num_threads())),
        ("threading layer", f"matrix products: {layers or 'unknown BLAS'}; training: {kernels}"),
    ]


def _folders() -> list[tuple[str, str]]:
    from ..dataset import find_mnist
    from ..kernels.jit import cache_folder

    folder = cache_folder()
    cache = "none: compiled code is kept in memory only"
    if folder is not None:
        kernels = sum(1 for _ in folder.rglob("*.nbc"))
        cache = f"{folder} ({kernels} compiled kernels)"
    mnist = find_mnist()
    return [
        ("cache folder", cache),
        ("FASTBP_DATA_DIR", os.environ.get("FASTBP_DATA_DIR", "not set")),
        ("MNIST", str(mnist) if mnist else "not here yet"),
    ]
