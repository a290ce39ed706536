"""Trainings in files: what ``fit`` needs to go on as if it had never stopped.

A checkpoint is written whole or not at all and carries a SHA-256 of itself; the newest one that is
valid is found by looking at all of them.  Nothing in a file is believed before it was compared with
the digest, and with the training that asks for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import sys
import time
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, _sealed
from ._arrays import Array, positive_int
from ._files import make_folder, remove_leftovers, write_atomically
from ._identity import differences, identity
from ._interrupt import Held
from ._trees import pack, unpack
from .checkpoint import sealed_network
from .history import History
from .optimizer import Optimizer
from .report import Meter
from .sampling import Batches
from .steps import COMPILED_OPTIMIZERS, CompiledSteps, LayerSteps

__all__ = ["CheckpointError", "Checkpoints", "Keeper"]

FORMAT = "fastbp checkpoint, version 1"
ANY_VERSION = re.compile(r"fastbp checkpoint, version \d+")
NAME = re.compile(r"step-(\d{9,18})\.safetensors")
BEST = "best.safetensors"

# The lists of a history, by the type of their numbers.
LISTS = dict.fromkeys(History().to_dict(), np.float64) | {"steps": np.int64}
del LISTS["settings"]


# What reading a file of somebody's making may raise.
DAMAGE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another training; the message has path and reason."""


class _AnotherVersion(Exception):  # noqa: N818 - it says what is there, not what is wrong
    """A checkpoint in a format of another fastbp: not damaged, and not ours to skip or delete."""


class Checkpoints:
    """Where ``fit`` keeps checkpoints, and how many.

    Parameters
    ----------
    folder : path-like
        Made when it is missing.  For one training alone.
    every : int, default 1000
        Steps from one to the next.  There is also one at the end, and on Ctrl-C.
    keep : int, default 3
        The newest so many stay; and, as ``best.safetensors``, a file for ``load_network`` with the
        network of the report that had the best accuracy (on the validation data, or else on the
        training data).

    Raises
    ------
    TypeError, ValueError
        For arguments that are none of these.
    """

    def __init__(self, folder: str | PathLike[str], *, every: int = 1000, keep: int = 3) -> None:
        if not isinstance(folder, (str, PathLike)):
            raise TypeError(f"Checkpoints: folder is {folder!r}, expected a path")
        self.folder = Path(folder)
        self.every = positive_int("Checkpoints", "every", every)
        self.keep = positive_int("Checkpoints", "keep", keep)

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}, every={self.every}, keep={self.keep})"

    def files(self) -> list[tuple[int, Path]]:
        """Return the checkpoints in the folder, damaged or not, the oldest first.

        Returns
        -------
        list of (step, path)
        """
        if not self.folder.is_dir():
            return []
        found = [(NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted((int(name[1]), path) for name, path in found if name and path.is_file())

    def clear(self) -> None:
        """Delete the checkpoints and the best network, to begin anew.

        Raises
        ------
        OSError
            As the operating system says.
        """
        for _, path in self.files():
            path.unlink()
        (self.folder / BEST).unlink(missing_ok=True)


class Keeper:
    """Writes the checkpoints of one training, and takes it up from one.

    Parameters
    ----------
    checkpoints : Checkpoints
    steps : CompiledSteps or LayerSteps
    batches : Batches
    meter : Meter
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        steps: CompiledSteps | LayerSteps,
        batches: Batches,
        meter: Meter,
    ) -> None:
        self.checkpoints = checkpoints
        self.steps, self.batches, self.meter = steps, batches, meter
        self.history = meter.history
        self.network, self.optimizer = steps.network, steps.optimizer
        self._identity = identity(steps, meter)
        self._saved = (-1, 0)  # steps and reports in the newest checkpoint
        self._best = -1.0  # accuracy
        self._held: tuple[tuple[int, int], bytes] | None = None

    # --- before ----------------------------------------------------------------------------------

    def begin(self, resume: bool) -> None:
        """Make the folder ready, and go on from the newest valid checkpoint in it.

        Parameters
        ----------
        resume : bool
            Otherwise there must be no checkpoint.

        Raises
        ------
        CheckpointError, OSError, TypeError
            Before anything of the training is changed.
        """
        folder = self.checkpoints.folder
        self._content()  # can all of it be saved?
        make_folder(folder)
        remove_leftovers(folder)
        files = self.checkpoints.files()
        if not files:
            return
        if not resume:
            raise CheckpointError(
                f"fit: {files[-1][1]} is a checkpoint already; resume=True goes on from it, "
                "another folder begins anew"
            )
        problems = []
        for step, path in reversed(files):
            try:
                training, state = _read(path)
                given = differences(self._identity, training["identity"], state["optimizer"])
                if not given:
                    self._check(step, state)
            except _AnotherVersion as error:
                raise CheckpointError(
                    f"fit: {path} is of another version of fastbp ({error}); go on with that one"
                ) from error
            except DAMAGE as error:
                problems.append(f"{path}: {error}")
                continue
            if given:
                raise CheckpointError(f"fit: {path} is of another training: {given}")
            if step > self.meter.total:
                raise CheckpointError(
                    f"fit: {path} has {step} steps already, more than the {self.meter.total} "
                    "asked for"
                )
            for problem in problems:
                warnings.warn(f"fit: a checkpoint is skipped: {problem}", stacklevel=3)
            self._identity = training["identity"]
            with Held():
                self._take(step, state)
            return
        raise CheckpointError("fit: no checkpoint is valid: " + "; ".join(problems))

    def _check(self, step: int, state: dict[str, Any]) -> None:
        """Raise ValueError unless a state fits the training."""
        params = self.network.params
        _like("parameters", state["params"], params)
        if state["last_good"]:
            _like("parameters of the last report", state["last_good"], params)
        self.batches.check(state["generator"], state["order"], step)
        _check_optimizer(self.optimizer, state["optimizer"], params)
        lists = state["history"]
        for name, kind in LISTS.items():
            if lists[name].dtype != kind or lists[name].ndim != 1:
                raise ValueError(f"{name} is no list of numbers")
        reports = {len(lists[name]) for name in LISTS if not name.startswith(("test", "train_l"))}
        tests = {len(lists["test_acc_list"]), len(lists["test_loss_list"])}
        steps = lists["steps"]
        if (
            len(lists["train_loss_list"]) != step
            or len(reports) != 1
            or tests != ({0} if self.meter.validation is None else reports)
            or (np.diff(steps, prepend=-1) <= 0).any()
            or (steps > step).any()
        ):
            raise ValueError("the lists of its history do not fit together")
        numbers = state["examples"], state["seconds"], state["elapsed"], state["best"]
        if tuple(map(type, numbers)) != (int, float, float, float):
            raise ValueError("its measurements are no numbers")
        examples, seconds, elapsed, best = numbers
        if not (
            0 <= examples <= step * self.history.settings["batch_size"]
            and 0 <= seconds < math.inf
            and 0 <= elapsed < math.inf
            and -1 <= best <= 1
        ):
            raise ValueError("its measurements are none that a training can have")

    def _take(self, step: int, state: dict[str, Any]) -> None:
        """Go on from a state that was checked."""
        for key, p in self.network.params.items():
            p[...] = state["params"][key]
        vars(self.optimizer).update(state["optimizer"])
        self.batches.restore(state["generator"], state["order"])
        lists = {name: state["history"][name].tolist() for name in LISTS}
        if (
            lists["steps"][-1:] == [step]
            and step % self.meter.per_epoch
            and step < self.meter.total
        ):
            # A last report within an epoch; a longer training has none there.
            for name in LISTS:
                if name != "train_loss_list":
                    del lists[name][-1:]
        for name, numbers in lists.items():
            getattr(self.history, name)[:] = numbers
        self.meter.go_on(state["last_good"], state["examples"], state["seconds"], state["elapsed"])
        self.steps.take_up()
        self._saved, self._best = (step, len(lists["steps"])), state["best"]

    # --- during ----------------------------------------------------------------------------------

    def until(self) -> int:
        """Return the number of steps to the next checkpoint."""
        every = self.checkpoints.every
        return every - len(self.history) % every

    def note(self) -> None:
        """After a report: keep the network, if it is the best so far."""
        history = self.history
        accuracy = (history.test_acc_list or history.train_acc_list)[-1]
        if not (len(history) and accuracy > self._best):
            return
        notes = {"step": len(history), "accuracy": accuracy}
        self._write(BEST, sealed_network(self.network, self.meter.last_good, notes))
        self._best = accuracy

    def save_if_due(self) -> None:
        """Save at multiples of ``every``, unless the training is about to be given up."""
        due = len(self.history) % self.checkpoints.every == 0
        if due and len(self.history):
            self.save()

    def hold(self) -> None:
        """Before a report: keep in mind what a checkpoint of now would be.

        Callbacks may change anything, and an interrupt may come between two of them.  Then it is
        this checkpoint that is written, and who goes on from it has the report whole.
        """
        self.steps.publish()
        self._held = (self._now(), self._content()) if self.meter.is_sound() else None

    def release(self) -> None:
        """After a report."""
        self._held = None

    def _now(self) -> tuple[int, int]:
        return len(self.history), len(self.history.steps)

    def save(self) -> str:
        """Write a checkpoint of now, then delete those that are too old.

        Nothing is written twice, and nothing of a training that diverges.

        Returns
        -------
        str
            Why nothing was written; nothing if all is saved.

        Raises
        ------
        OSError
            When it cannot be written; those before are as they were.
        """
        now, content = self._held or (self._now(), None)
        if now == self._saved:
            return ""
        if content is None:
            self.steps.publish()
            if not self.meter.is_sound():
                return "no checkpoint: the training is about to diverge"
            content = self._content()
        step, _ = now
        self._write(f"step-{step:09}.safetensors", content)
        self._saved = now
        files = self.checkpoints.files()
        # What is newer than this was damaged, or the training would have gone on from there.
        newest = [path for found, path in files if found <= step][-self.checkpoints.keep :]
        for _, path in files:
            if path not in newest:
                with contextlib.suppress(OSError):  # the next checkpoint tries again
                    path.unlink(missing_ok=True)
        return ""

    def _write(self, name: str, content: bytes) -> None:
        path, step = self.checkpoints.folder / name, len(self.history)
        try:
            write_atomically(path, content)
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"the checkpoint of step {step} cannot be saved ({error.strerror or error}); "
                "those before it are as they were",
                str(path),
            ) from error

    def _content(self) -> bytes:
        """Return what a checkpoint of now holds."""
        generator, order = self.batches.state()
        history = {name: np.array(getattr(self.history, name), LISTS[name]) for name in LISTS}
        state = {
            "params": self.network.params,
            "optimizer": vars(self.optimizer),
            "generator": generator,
            "order": order,
            "history": history,
            "last_good": self.meter.last_good,
            "examples": self.meter.examples,
            "seconds": time.perf_counter() - self.meter.resumed,
            "elapsed": time.perf_counter() - self.meter.begin,
            "best": self._best,
        }
        arrays: dict[str, Array] = {}
        training = {
            "versions": {
                "fastbp": __version__,
                "numpy": np.__version__,
                "python": sys.version.split()[0],
            },
            "identity": self._identity,
            "state": pack(state, arrays),
        }
        return _sealed.seal(arrays, {"format": FORMAT, "training": json.dumps(training)})


# --- files ----------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a checkpoint says of its training, and the state.

    Raises
    ------
    OSError
        When the disk cannot be read: that tells nothing of the file.
    _AnotherVersion, and those of DAMAGE
    """
    safetensors = _sealed.library()
    _sealed.check_header(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            found = metadata.get("format", "")
            if found != FORMAT:
                if ANY_VERSION.fullmatch(found):
                    raise _AnotherVersion(found)
                raise ValueError(f"its format is {found!r}, expected {FORMAT!r}")
            _sealed.verify(path, metadata)
            training = json.loads(_sealed.text_of(metadata, "training"))
            state = unpack(training["state"], file)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"not a safetensors file ({error})") from error
    if not isinstance(training["identity"], dict) or not isinstance(state, dict):
        raise CheckpointError("it describes no training")
    return training, state


# --- what fits ------------------------------------------------------------------------------------


def _like(what: str, found: Any, params: dict[str, Array]) -> None:
    """Raise ValueError unless arrays have the keys, shapes and types of the parameters."""
    if (
        not isinstance(found, dict)
        or found.keys() != params.keys()
        or any(
            not isinstance(array, np.ndarray)
            or array.shape != params[key].shape
            or array.dtype != params[key].dtype.newbyteorder("=")
            for key, array in found.items()
        )
    ):
        raise ValueError(f"its {what} do not fit the network")


def _check_optimizer(optimizer: Optimizer, state: Any, params: dict[str, Array]) -> None:
    """Raise ValueError unless a state fits an optimizer and the network's parameters."""
    now = vars(optimizer)
    known = type(optimizer) in COMPILED_OPTIMIZERS  # others may make attributes as they go
    if not isinstance(state, dict) or now.keys() - state.keys() or (known and state.keys() - now):
        raise ValueError(f"its optimizer does not fit {optimizer!r}")
    for name, value in now.items():
        found = state[name]
        if name in optimizer._slots:
            if found or not isinstance(found, dict):
                _like(f"optimizer's {name}", found, params)
        elif known and name == "iter":
            if type(found) is not int or not 0 <= found < 2**62:
                raise ValueError(f"its optimizer's {name} is {found!r}")
        elif type(value) is int or isinstance(value, (float, np.floating)):
            # A callback may say lr = 1 where there was 0.1, or the other way round.
            real = isinstance(found, (float, np.floating, np.integer))
            if not real and (type(found) is not int or abs(found) >= 2**62):
                raise ValueError(f"its optimizer's {name} is {found!r}")
