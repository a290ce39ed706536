"""What ``fastbp train --resume`` needs to know: the options of a training, kept beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import UsageError

if TYPE_CHECKING:
    from ..checkpoints import Checkpoints

FORMAT = "fastbp training, version 1"
NAME = "training.json"
MAX_BYTES = 100_000

# Where the results go and what is shown are no part of a training.
NOT_KEPT = {"out", "force", "quiet", "threads", "resume"}
# What may be another when it goes on.
FREE = {"epochs", "iterations", "checkpoint_every", "checkpoint_keep"}


def checkpoints(options: argparse.Namespace) -> Checkpoints | None:
    """Return where the options have checkpoints kept, or None."""
    from ..checkpoints import Checkpoints

    if options.checkpoint_every is None:
        return None
    keep = {} if options.checkpoint_keep is None else {"keep": options.checkpoint_keep}
    return Checkpoints(_folder(options.out), every=options.checkpoint_every, **keep)


def save(options: argparse.Namespace) -> None:
    """Write a training's options into its folder."""
    from .._files import write_atomically

    arguments = []
    for name, value in vars(options).items():
        if name in NOT_KEPT or value is None:
            continue
        if name in ("data", "data_dir"):
            value = _absolute(value)
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        arguments.append(f"--{name.replace('_', '-')}={text}")
    content = json.dumps({"format": FORMAT, "arguments": arguments}, indent=1) + "\n"
    write_atomically(options.out / NAME, content.encode())


def clear(out: Path) -> None:
    """Delete a training that ``--force`` replaces."""
    from ..checkpoints import Checkpoints

    (out / NAME).unlink(missing_ok=True)
    Checkpoints(_folder(out)).clear()


def go_on(
    said: dict[str, Any], parse: Callable[[list[str]], argparse.Namespace]
) -> tuple[argparse.Namespace, argparse.Namespace]:
    """Return the options with which a training goes on, and those it had before.

    Parameters
    ----------
    said : dict
        The options that were typed.
    parse : function
        Makes options of arguments, or raises UsageError.

    Raises
    ------
    UsageError
        When there is no training, and for options that contradict it.
    """
    out = said["resume"]
    for name in ("out", "force"):
        if name in said:
            raise UsageError(f"argument --{name}: --resume goes on in {out}; leave it away")
    if find_spec("safetensors") is None:
        raise UsageError("argument --resume: checkpoints need `pip install 'fastbp[train]'`")
    before = _load(out, parse)
    for name, value in said.items():
        had = getattr(before, name)
        if name in ("data", "data_dir"):
            value = type(value)(_absolute(value))
        if name not in NOT_KEPT | FREE and value != had:
            raise UsageError(
                f"argument --{name.replace('_', '-')}: the training in {out} has {_text(had)}, "
                f"not {_text(value)}; leave it away"
            )
    after = argparse.Namespace(**vars(before))
    if {"epochs", "iterations"} & said.keys():
        after.epochs = after.iterations = None
    for name, value in said.items():
        if name in FREE | {"quiet", "threads"}:
            setattr(after, name, value)
    after.out, after.resume = out, out
    return after, before


def _load(out: Path, parse: Callable[[list[str]], argparse.Namespace]) -> argparse.Namespace:
    path = out / NAME
    if not path.is_file():
        raise UsageError(
            f"argument --resume: {out} has no training to go on with; "
            "`fastbp train --out DIR --checkpoint-every N` keeps one"
        )
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_BYTES))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, expected {FORMAT!r}")
        arguments = content["arguments"]
        if not all(type(a) is str and a.startswith("--") and "=" in a for a in arguments):
            raise ValueError("its arguments are none")
        options = parse(arguments)
        length = options.epochs or options.iterations
        if None in (options.checkpoint_every, options.lr, options.batch_size, length):
            raise ValueError("it is not what --checkpoint-every writes")
    except (LookupError, TypeError, ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"argument --resume: {path} is damaged ({error})") from error
    return options


def _folder(out: Path) -> Path:
    return out / "checkpoints"


def _absolute(data: Any) -> str:
    """Return a file or a folder from the root; the data sets with names stay as they are."""
    return str(data) if data in ("digits", "mnist") else str(Path(data).absolute())


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
