"""Operations that need a process of their own: imports, first calls, memory.

``python -m fastbp.bench.processes step torch 1`` is such a process: it does its work and prints
what came out as a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastbp

from .machine import Unavailable
from .networks import PEERS
from .with_numpy import Call
from .workloads import Workload

# Where compiled code is kept.
CACHES = ("FASTBP_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CACHEDB")

# How each implementation is imported, if not by its name.  `import fastbp` alone loads nothing yet.
IMPORTS = {
    "reference": "import numpy",
    "fastbp": "from fastbp import TwoLayerNet, fit",
    "sklearn": "import sklearn.neural_network",
}

# The first step, and the epoch whose memory is looked at.
STEP = Workload("step", (784, 50, 10), 100, "random sparse", 100)
EPOCH = Workload("epoch", (784, 50, 10), 100, "random sparse", 6000)


@dataclass(frozen=True)
class Peak:
    """What a call returned, and the most memory its process had, in bytes."""

    result: Any
    bytes: int


def import_call(implementation: str) -> Call:
    """Return a call that imports what a training needs in a new process."""
    statement = IMPORTS.get(implementation, f"import {implementation}")

    def call() -> int:
        run("-c", statement)
        return 0

    return call


def first_step_call(implementation: str, threads: int, cached: bool) -> Call:
    """Return a call that takes one training step in a new process, and returns the loss after it.

    With ``cached`` a process before has left compiled code behind; otherwise there is none.
    """
    words = ("-m", __name__, "step", implementation, str(threads))
    if cached:
        run(*words)
        return lambda: json.loads(run(*words))["after"]

    def call() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            empty = {name: str(Path(folder) / name) for name in CACHES}
            return json.loads(run(*words, **empty))["after"]

    return call


def memory_call(implementation: str, threads: int) -> Call:
    """Return a call that trains for an epoch in a new process; it returns a :class:`Peak`."""
    if sys.platform == "win32":
        raise Unavailable("Windows does not tell a process its peak memory")

    def call() -> Peak:
        answer = json.loads(run("-m", __name__, "epoch", implementation, str(threads)))
        return Peak(answer["after"], answer["peak"])

    return call


class ProcessError(RuntimeError):
    """A process failed; says how in a line."""


def run(*arguments: str, **environment: str) -> str:
    """Run Python on this fastbp; return the last line that it printed.

    Raises
    ------
    ProcessError
        When it ends with an exit code.
    """
    paths = [str(Path(fastbp.__file__).parents[1]), *filter(None, sys.path)]
    done = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise ProcessError(f"python {' '.join(arguments)} ended with {done.returncode}: {reason}")
    return done.stdout.strip().rpartition("\n")[2]


def main(what: str, implementation: str, threads: str) -> None:
    """Do the work of such a process."""
    peer = PEERS[implementation](STEP if what == "step" else EPOCH, int(threads))
    if implementation in ("reference", "sklearn"):
        fastbp.set_num_threads(int(threads))  # the pool of NumPy's BLAS
    if what == "step":
        peer.step()
    else:
        peer.take(EPOCH.per_epoch)
    answer = {"after": peer.loss()}
    if what == "epoch":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        answer["peak"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
