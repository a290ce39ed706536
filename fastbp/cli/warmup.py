"""``fastbp warmup``: compile everything now, so that nothing waits for it later."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import time
from typing import Any


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "warmup",
        help="compile every kernel and keep the machine code in the cache",
        description="Compile every kernel for float32 and float64 and keep the machine code in the "
        "cache folder, so that no later program waits for it.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, command="warmup")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from tqdm import tqdm

    from .. import kernels
    from ..kernels import jit

    begin = time.perf_counter()
    for module in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{module.name}")
    bar = tqdm(
        jit.compile_all(), total=jit.count_all(), unit="kernel", disable=options.quiet or None
    )
    done = 0
    for name in bar:
        bar.set_postfix_str(name)
        done += 1
    if not options.quiet:
        where = jit.cache_folder() or "memory only, lost when this process ends"
        print(f"{done} kernels ready in {time.perf_counter() - begin:.1f} s: {where}")
    return 0
