"""Two commits beside each other: each in a process of its own, taking turns.

Both run the cases of this tree, which stand in for those of the older commit; everything else is
the commit's own.  The compiled code of both is kept in the usual cache, whose folders are named
after the sources.

A process reads lines and answers each with a line of JSON: ``prepare NAME`` builds a case and
compares its result with the reference, ``turn`` times it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from .agreement import prepare, require_agreement
from .cases import Case
from .gate import CLOCK, LOOKS, gate_cases
from .machine import Disagreement
from .timing import no_collection, turn_length, value

# A case fails when it takes more than this many times as long as before.
ALLOWED = 1.25
ROUNDS = 21


class Refused(Exception):  # noqa: N818 - the question cannot be answered
    """The commits cannot be compared; says why in a line."""


class Failed(Exception):  # noqa: N818 - a result: the new commit is wrong
    """The new commit cannot run a case, or runs it wrongly; says how in a line."""


def git(*arguments: str, folder: Path) -> bytes:
    """Run git in a folder; return what it printed.

    Raises
    ------
    Refused
        When there is no git, or it fails.
    """
    program = shutil.which("git")
    if program is None:
        raise Refused("git is not installed")
    done = subprocess.run(  # noqa: S603 - our own arguments
        [program, "-C", str(folder), *arguments], capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise Refused(f"git {arguments[0]}: {said[0]}")
    return done.stdout


def resolve(revision: str, folder: Path) -> tuple[Path, str, str]:
    """Return the repository, the commit that a revision names, and that of HEAD.

    Raises
    ------
    Refused
        Outside a repository, for an unknown revision, and for changes that are not committed.
    """
    root = Path(git("rev-parse", "--show-toplevel", folder=folder).decode().strip())
    try:
        name = f"{revision}^{{commit}}"
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", name, folder=root)
    except Refused as error:
        if "not installed" in str(error):
            raise
        raise Refused(f"{revision!r} names no commit") from error
    if git("status", "--porcelain", "--untracked-files=no", folder=root).strip():
        raise Refused("the working tree has changes that are not committed")
    head = git("rev-parse", "HEAD", folder=root)
    return root, commit.decode().strip(), head.decode().strip()


def lay_out(root: Path, commit: str, folder: Path) -> Path:
    """Write a commit's package into a folder, with the cases of this one; return the folder."""
    archive = git("archive", "--format=tar", commit, "fastbp", folder=root)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            # git's own archive of our own files
            tar.extractall(folder)  # noqa: S202  # nosec B202
    cases = folder / "fastbp" / "bench"
    shutil.rmtree(cases, ignore_errors=True)
    shutil.copytree(Path(__file__).parent, cases, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


class Worker:
    """A process with one commit's fastbp; a context manager that ends it.

    ``problem`` is what it raises when the process has ended or cannot run a case.
    """

    def __init__(self, tree: Path, problem: type[Exception] = Refused) -> None:
        self.problem = problem
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
        self.process = subprocess.Popen(  # noqa: S603 - our own arguments
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tree,
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
    """Yield the comparison of each case of two trees; what is slower is looked at again."""
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
    """Return how many times as long the new tree takes, with two new processes."""
    with ExitStack() as stack:
        both = ((old, Refused), (new, Failed))
        workers = [stack.enter_context(Worker(tree, problem)) for tree, problem in both]
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
