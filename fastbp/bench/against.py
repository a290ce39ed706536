"""Two commits beside each other: each in its environment and a process of its own, taking turns.

Both run the cases of this tree; everything else is the commit's own.  The compiled code of both is
kept in the usual cache, whose folders are named after the sources.

A process reads lines and answers each with a line of JSON: ``prepare NAME`` builds a case and
compares its result with the reference, ``turn`` times it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from .agreement import prepare, require_agreement
from .cases import Case
from .commits import Refused, clean_environment
from .gate import CLOCK, LOOKS, gate_cases
from .machine import Disagreement
from .timing import keep_memory, no_collection, turn_length, value

# A case fails when it takes more than this many times as long as before.
ALLOWED = 1.25
ROUNDS = 21


class Failed(Exception):  # noqa: N818 - a result: the new commit is wrong
    """The new commit cannot run a case, or runs it wrongly; says how in a line."""


class Worker:
    """A process with one commit's fastbp; a context manager that ends it.

    ``python`` is that of the commit's environment; ``problem`` what is raised when the process has
    ended or cannot run a case.
    """

    def __init__(self, python: Path, problem: type[Exception] = Refused) -> None:
        self.problem = problem
        self.process = subprocess.Popen(  # noqa: S603 - our own arguments
            [str(python), "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
            cwd=python.parent,  # where no fastbp is
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self.process.stdin is not None  # noqa: S101 - tells the type checker
        assert self.process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def ask(self, line: str) -> Any:
        """Send a line; return the answer.

        Raises
        ------
        Refused, Failed
            Which of them this worker has: when the process has ended, or cannot run the case.
        """
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):
            print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise self.problem(f"the process of the commit ended with {self.process.wait()}")
        content = json.loads(answer)
        if "error" in content:
            raise self.problem(content["error"])
        return content


@dataclass(frozen=True)
class Comparison:
    """A case on both commits.

    Attributes
    ----------
    case : Case
    ratios : tuple of float
        Of each look: the new commit's time over the old one's.
    problem : str
        Why the old commit could not run it, or nothing.
    failure : str
        Why the new commit could not, or nothing.
    """

    case: Case
    ratios: tuple[float, ...]
    problem: str = ""
    failure: str = ""

    @property
    def ratio(self) -> float:
        """The best that was seen."""
        return min(self.ratios)

    @property
    def holds(self) -> bool:
        """Whether the new commit is right and about as fast, or the old one cannot tell."""
        return not self.failure and (not self.ratios or self.ratio <= ALLOWED)


def compare(old: Path, new: Path, cases: Sequence[Case] | None = None) -> Iterator[Comparison]:
    """Yield the comparison of each case of two commits, by the Pythons of their environments.

    What is slower is looked at again.
    """
    for case in gate_cases() if cases is None else cases:
        ratios: list[float] = []
        try:
            for longer in LOOKS:
                ratios.append(look(old, new, case, longer * ROUNDS))
                if ratios[-1] <= ALLOWED:
                    break
        except Refused as problem:
            yield Comparison(case, tuple(ratios), problem=str(problem))
        except Failed as failure:
            yield Comparison(case, tuple(ratios), failure=str(failure))
        else:
            yield Comparison(case, tuple(ratios))


def look(old: Path, new: Path, case: Case, rounds: int) -> float:
    """Return how many times as long the new commit takes, with two new processes."""
    with ExitStack() as stack:
        both = ((old, Refused), (new, Failed))
        workers = [stack.enter_context(Worker(python, problem)) for python, problem in both]
        # The new one first: what is wrong there counts, whatever the old one can do.
        for worker in reversed(workers):
            worker.ask(f"prepare {case.name}")
        seconds: tuple[list[float], list[float]] = ([], [])
        for i in range(rounds):
            pairs = list(zip(workers, seconds, strict=True))
            for worker, values in pairs if i % 2 == 0 else reversed(pairs):
                values.append(worker.ask("turn")["seconds"])
    before, after = seconds
    return statistics.median(b / a for a, b in zip(before, after, strict=True))


def serve(lines: TextIO, out: TextIO) -> None:
    """Be such a process: answer lines until there are no more."""
    keep_memory()
    cases = {case.name: case for case in gate_cases()}
    call, number = None, 1
    for line in lines:
        word, _, name = line.strip().partition(" ")
        answer: dict[str, Any] = {"ready": name}
        if word == "prepare":
            try:
                found = prepare(cases[name], ("reference", "fastbp"))
                require_agreement(cases[name], found.results)
                call = found.calls["fastbp"]
                number = turn_length(call, CLOCK)
            except Disagreement as error:
                answer = {"error": str(error)}
            except Exception as error:  # another commit's own
                answer = {"error": f"{name}: {type(error).__name__}: {error}"}
        else:
            assert call is not None  # noqa: S101
            with no_collection():
                answer = {"seconds": value(call, number, CLOCK)}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    stdout, sys.stdout = sys.stdout, sys.stderr
    serve(sys.stdin, stdout)
