"""Processes that train, each with one implementation, and take a turn when they are told to.

A worker reads lines and answers each with a line of JSON:

    prepare WORKLOAD    build everything for a workload (JSON)
    check STEPS         the same steps as everybody from the same weights: loss before and after
    run STEPS           at least so many steps: seconds a step, steps, and the loss behind them
    whole               a whole training: seconds and accuracy
"""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from fastbp.bench.frameworks import Jax, JaxScan, Torch, TorchCompile
from fastbp.bench.peers import Book, Fastbp, Peer, Sklearn
from fastbp.bench.workloads import Workload

IMPLEMENTATIONS: dict[str, type[Peer]] = {
    "fastbp": Fastbp,
    "book": Book,
    "sklearn": Sklearn,
    "torch": Torch,
    "torch.compile": TorchCompile,
    "jax": Jax,
    "jax-scan": JaxScan,
}

# Those that take long to get ready are left out unless asked for by name.
ON_REQUEST = ("torch.compile",)

# What the pools of BLAS and OpenMP read when they are loaded.  fastbp has a call for it.
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def missing(name: str) -> str | None:
    """Return the package that an implementation lacks here, or None."""
    package = name.split(".")[0].split("-")[0]
    package = {"book": "numpy"}.get(package, package)
    return None if find_spec(package) else package


class Worker:
    """A process with one implementation, seen from outside; a context manager that ends it.

    Parameters
    ----------
    name : str
        A key of ``IMPLEMENTATIONS``.
    threads : int
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["PYTHONSAFEPATH"] = "1"  # the paths of this process, and no other
        if name != "fastbp":
            environment |= dict.fromkeys(POOLS, str(threads))
        command = ["-m", "benchmarks.training", "--worker", name, "--threads", str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).resolve().parent.parent,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def tell(self, *words: object) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the missing answer will tell
            print(*words, file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to a line.

        Raises
        ------
        RuntimeError
            When the process has ended; what it died of is on the standard error output.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise RuntimeError(f"the process of {self.name} ended with exit code {code}")
        return json.loads(line)

    def ask(self, *words: object) -> dict[str, Any]:
        """Send a line and wait for its answer."""
        self.tell(*words)
        return self.answer()

    def close(self) -> None:
        """End the process: without input it leaves by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def serve(name: str, threads: int, lines: TextIO, out: TextIO) -> None:
    """Be a worker: answer lines until there are no more."""
    if name.startswith("jax") and hasattr(os, "sched_setaffinity"):
        # XLA has as many threads as the process may use CPUs.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    peer: Peer | None = None
    for line in lines:
        command, _, argument = line.strip().partition(" ")
        if command == "prepare":
            peer = None  # frees its data first
            peer = IMPLEMENTATIONS[name](Workload.from_json(argument), threads)
            result: dict[str, Any] = {"ready": name}
        else:
            assert peer is not None, "prepare comes first"
            result = _obey(peer, command, argument)
        print(json.dumps(result), file=out, flush=True)


def _obey(peer: Peer, command: str, argument: str) -> dict[str, Any]:
    """Do what a line says."""
    gc.collect()
    if command == "check":
        before, after = peer.check(int(argument))
        return {"before": before, "after": after}
    if command == "run":
        gc.disable()
        seconds, steps = peer.run(int(argument))
        gc.enable()
        after = peer.loss()
        assert math.isfinite(after), f"the loss is {after} after {steps} steps"
        return {"seconds": seconds / steps, "steps": steps, "after": after}
    if command == "whole":
        seconds, accuracy = peer.whole()
        return {"seconds": seconds, "steps": peer.workload.whole, "accuracy": accuracy}
    raise ValueError(f"unknown command {command!r}")


def work(name: str, threads: int) -> int:
    """Be a worker on the standard streams; what others print goes to the error output."""
    out = sys.stdout
    sys.stdout = sys.stderr
    serve(name, threads, sys.stdin, out)
    return 0
