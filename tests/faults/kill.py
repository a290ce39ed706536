"""Kill trainings at random moments, and see that nothing is lost.

    python -m tests.faults.kill [--kills 1000] [--jobs 2] [--seed 0]

A child process trains and keeps a checkpoint every few steps; SIGKILL ends it: anywhere, or some
time after it began to save, or right before one of the calls that a save is made of.  Then the
newest checkpoint that was reported saved must be there and valid, and a training that goes on from
the folder must reach the bits of one that nobody killed: parameters, optimizer, random state,
losses and log.  The next child goes on where the killed one was, until the training is finished and
another one begins.

Exit code 1 if a kill lost something, or if fewer than a fifth came inside a save.
"""

import argparse
import itertools
import mmap
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from fastbp import Checkpoints, checkpoints
from tests.resuming import TOTAL, Layered, everything, train

# What is trained; each chain of kills takes one of these.
VARIANTS = [
    {"optimizer": "Adam"},
    {"optimizer": "Momentum", "sampling": "choice", "inputs": "sparse", "dtype": np.float32},
    {"optimizer": "SGD", "sampling": "choice", "seed": None},
    {"optimizer": "RMSprop", "inputs": "bytes", "cls": Layered},
]
EVERY, KEEP = 3, 2
# Kills of a chain: enough to finish a training in it now and then.
CHAIN = 10

# Where a child is.  Those from SAVING on are inside a save.
PHASES = (
    "starting", "training", "keeping the best", "saving", "writing the file", "flushing the file",
    "renaming", "flushing the folder", "deleting old ones",
)  # fmt: skip
TRAINING, BEST, SAVING, WRITING, FILE, RENAMING, FOLDER, DELETING = range(1, len(PHASES))
# Seconds within which a kill comes: after the child began, or after it began to save.
ANYWHERE, WITHIN = 0.1, 0.01


class Board:
    """Memory that parent and child share, which says where the child is.

    It is there after the child's death, as the child left it.

    Parameters
    ----------
    stop : (phase, times), optional
        The child waits for its death when it enters the phase for the so-manieth time.
    """

    def __init__(self, stop=(0, 0)):
        self._memory = mmap.mmap(-1, 17)
        self.stop, self._left = stop

    @property
    def phase(self):
        return struct.unpack_from("q", self._memory, 0)[0]

    @phase.setter
    def phase(self, value):
        struct.pack_into("q", self._memory, 0, value)

    def enter(self, phase):
        """Tell where the child is now."""
        self.phase = phase
        if phase == self.stop:
            self._left -= 1
            if self._left == 0:
                self.waits = True
                time.sleep(60)

    @property
    def waits(self):
        """Whether the child waits for its death."""
        return bool(self._memory[16])

    @waits.setter
    def waits(self, value):
        self._memory[16] = value

    @property
    def saved(self):
        """The step of the newest checkpoint that was reported saved."""
        return struct.unpack_from("q", self._memory, 8)[0]

    @saved.setter
    def saved(self, value):
        struct.pack_into("q", self._memory, 8, value)


class Halves:
    """A file that tells when half of what is written is written."""

    def __init__(self, file, board):
        self._file, self._board = file, board
        self.flush, self.fileno = file.flush, file.fileno

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, content):
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        self._board.enter(WRITING)
        self._file.write(content[half:])


def mark_phases(board):
    """Let the writing of checkpoints tell where it is; in a child alone, which never undoes it."""

    def during(owner, name, phase, only_within=False):
        call = getattr(owner, name)

        def marked(*arguments, **options):
            before = board.phase
            if before >= SAVING or not only_within:
                board.enter(phase(*arguments) if callable(phase) else phase)
            result = call(*arguments, **options)
            board.phase = before
            return result

        setattr(owner, name, marked)

    def what_is_flushed(handle):
        return FOLDER if board.phase == FOLDER else FILE

    replace, fdopen = os.replace, os.fdopen

    def opened(handle, mode):
        file = fdopen(handle, mode)
        return Halves(file, board) if board.phase >= SAVING else file

    def renamed(*arguments):
        inside = board.phase >= SAVING
        if inside:
            board.enter(RENAMING)
        replace(*arguments)
        if inside:
            board.phase = FOLDER  # what comes next

    os.replace, os.fdopen = renamed, opened
    during(os, "fsync", what_is_flushed, only_within=True)
    during(Path, "unlink", DELETING, only_within=True)
    during(checkpoints.Keeper, "note", BEST)
    save = checkpoints.Keeper.save

    def saving(keeper):
        board.enter(SAVING)
        save(keeper)
        board.saved = keeper._saved[0]
        board.phase = TRAINING

    checkpoints.Keeper.save = saving


def child(folder, variant, board):
    """Train to the end, or until killed."""
    mark_phases(board)
    board.phase = TRAINING
    train(TOTAL, checkpoints=Checkpoints(folder, every=EVERY, keep=KEEP), resume=True, **variant)


def start(folder, variant, board):
    """Fork a child; returns its process number."""
    board.phase, board.saved = 0, -1
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        warnings.simplefilter("error")
        child(folder, variant, board)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill_one(folder, variant, rng):
    """Run a child and kill it; returns the phase, or None if it was finished before."""
    way = rng.integers(3)
    board = Board((rng.integers(SAVING, len(PHASES)), rng.integers(1, 4)) if way == 0 else (0, 0))
    pid = start(folder, variant, board)

    def wait_for(reached):
        while not (reached() or os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            time.sleep(1e-4)

    if way == 0:
        wait_for(lambda: board.waits)
    elif way == 1:
        wait_for(lambda: board.phase >= SAVING)
        time.sleep(rng.random() * WITHIN)
    else:
        time.sleep(rng.random() * ANYWHERE)
    os.kill(pid, signal.SIGKILL)  # it is not waited for yet, so the number is its own
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None, board.saved
    if code != -signal.SIGKILL:
        raise AssertionError(f"the training itself failed, {code}")
    return board.phase, board.saved


def examine(folder, variant, saved, expected):
    """Raise AssertionError unless nothing was lost."""
    steps = [step for step, _ in Checkpoints(folder).files()]
    if max(steps, default=-1) < saved:
        raise AssertionError(f"step {saved} was reported saved, there are {steps}")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as where a damaged checkpoint is skipped
            result = train(
                TOTAL, checkpoints=Checkpoints(copy, every=10**6), resume=True, disturb=bool(steps),
                **variant,
            )  # fmt: skip
        if everything(result, copy) != expected:
            raise AssertionError(f"resumed from {steps}, other bits")
        left = [path.name for path in Path(copy).glob(".*")]
        if left:
            raise AssertionError(f"left behind: {left}")


def chain(task):
    """Kill a training again and again; returns how often in which phase, and what went wrong."""
    seed, kills = task
    rng = np.random.default_rng(seed)
    variant = VARIANTS[seed[1] % len(VARIANTS)]
    found, problems = Counter(), []
    with tempfile.TemporaryDirectory() as base:
        expected = everything(
            train(TOTAL, checkpoints=Checkpoints(f"{base}/never", every=10**6), **variant),
            f"{base}/never",
        )
        folders = (Path(base) / str(i) for i in itertools.count())
        folder, acknowledged = next(folders), -1
        while found.total() < kills:
            folder.mkdir(exist_ok=True)
            phase = None
            try:
                phase, saved = kill_one(folder, variant, rng)
                acknowledged = max(acknowledged, saved)
                examine(folder, variant, acknowledged, expected)
            except Exception as error:
                problems.append(f"{variant}, killed {PHASES[phase or 0]}: {error!r}")
                return found + Counter({phase or 0: 1}), problems
            if phase is None:
                folder, acknowledged = next(folders), -1
            else:
                found[phase] += 1
    return found, problems


def main():
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # tqdm has a lock that processes share, and who is killed with it in hand never lets go.
    tqdm.set_lock(threading.RLock())
    for variant in VARIANTS:  # everything is compiled or loaded before the first fork
        train(5, **{**variant, "threads": 1})
        variant["threads"] = 1
    sizes = [CHAIN] * (options.kills // CHAIN) + [options.kills % CHAIN]
    tasks = [((options.seed, i), kills) for i, kills in enumerate(sizes) if kills]
    begin, found, problems = time.perf_counter(), Counter(), []
    with (
        multiprocessing.get_context("fork").Pool(options.jobs) as pool,
        tqdm(total=options.kills, unit="kill", disable=None) as bar,  # its thread after the forks
    ):
        for counts, wrong in pool.imap_unordered(chain, tasks):
            found += counts
            problems += wrong
            bar.update(counts.total())
    for phase, count in sorted(found.items()):
        print(f"{count:6} killed {PHASES[phase]}")
    inside = sum(count for phase, count in found.items() if phase >= SAVING)
    print(
        f"{found.total()} kills, {inside} inside a save, {len(problems)} lost something, "
        f"{time.perf_counter() - begin:.0f} s"
    )
    for problem in problems:
        print(problem)
    return 1 if problems or inside < options.kills / 5 else 0


if __name__ == "__main__":
    sys.exit(main())
