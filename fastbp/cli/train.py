"""``fastbp train``: train a network, tell how it went, keep what came out."""

from __future__ import annotations

import argparse
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._files import make_folder, remove_leftovers
from .._interrupt import Termination
from .options import (
    CommandFailed,
    Data,
    UsageError,
    add_data,
    add_network,
    add_threads,
    build_network,
    load_data,
    nonnegative_float,
    positive_float,
    positive_int,
    set_threads,
)
from .settings import checkpoints, clear, go_on, save

if TYPE_CHECKING:
    from ..trainer import History, Report

# Below this many training examples, small batches and more passes are the better default.
SMALL = 10_000
LEARNING_RATES = {
    "sgd": 0.1,
    "momentum": 0.01,
    "nesterov": 0.01,
    "adagrad": 0.01,
    "rmsprop": 0.001,
    "adam": 0.001,
}


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a network; without arguments, on the digits inside the package",
        description="Train a network on mini-batches and report loss and accuracy.",
        allow_abbrev=False,
    )
    _add_options(parser)
    # None means not said: what is said must agree with a training that is gone on with.
    parser.set_defaults(**dict.fromkeys(vars(_parse([]))))
    parser.set_defaults(run=run, command="train")


def _add_options(parser: Any) -> None:
    add_data(parser)
    add_network(parser)
    group = parser.add_argument_group("training")
    group.add_argument("--optimizer", choices=list(LEARNING_RATES), default="sgd")
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items())
    group.add_argument(
        "--lr", type=positive_float, metavar="RATE", help=f"learning rate (default: {rates})"
    )
    group.add_argument(
        "--weight-decay",
        type=nonnegative_float,
        default=0.0,
        metavar="LAMBDA",
        help="adds LAMBDA / 2 * sum(W**2) to the loss (default: 0)",
    )
    group.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help=f"(default: 100; 10 for fewer than {SMALL:,} examples)",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help=f"passes over the data (default: 20; 30 for fewer than {SMALL:,} examples)",
    )
    length.add_argument("--iterations", type=positive_int, metavar="N", help="steps, instead")
    group.add_argument(
        "--sampling",
        choices=["shuffle", "choice"],
        default="shuffle",
        help="every example once an epoch (default), or drawn with replacement as in the book",
    )
    add_threads(group)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep model.safetensors and history.json there, and with the extra `plot` curves.png "
        "and mistakes.png",
    )
    group.add_argument("--force", action="store_true", help="write to DIR even if it exists")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    group = parser.add_argument_group("checkpoints")
    group.add_argument(
        "--checkpoint-every",
        type=positive_int,
        metavar="N",
        help="every N steps, keep in the folder of --out all that is needed to go on",
    )
    group.add_argument(
        "--checkpoint-keep", type=positive_int, metavar="N", help="the last so many (default: 3)"
    )
    group.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the training in DIR, bit for bit; --epochs or --iterations may be more",
    )


class _Parser(argparse.ArgumentParser):
    """For arguments that nobody typed."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command's options, with their defaults."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    _add_options(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    said = {name: value for name, value in vars(options).items() if value is not None}
    del said["run"], said["command"]
    termination = Termination()
    try:
        with termination:
            code = _run(said)
    except KeyboardInterrupt:
        if not termination.asked:
            raise
        print("fastbp train: terminated", file=sys.stderr)
        code = 143
    return 143 if termination.asked and code == 130 else code


def _run(said: dict[str, Any]) -> int:
    options, before = argparse.Namespace(**vars(_parse([])) | said), None
    if options.resume is not None:
        options, before = go_on(said, _parse)
    elif options.out is not None:
        _check_out(options.out, options.force)
    if options.checkpoint_every is None and options.checkpoint_keep is not None:
        raise UsageError("argument --checkpoint-keep: needs --checkpoint-every N")
    if options.checkpoint_every is not None and options.out is None:
        raise UsageError("argument --checkpoint-every: needs a folder to keep them in, --out DIR")
    set_threads(options)
    data = load_data(options)
    say = _silent if options.quiet else print
    network = build_network(options, data)
    small = len(data.x_train) < SMALL
    options.lr = LEARNING_RATES[options.optimizer] if options.lr is None else options.lr
    options.batch_size = min(options.batch_size or (10 if small else 100), len(data.x_train))
    if options.iterations is None and options.epochs is None:
        options.epochs = 30 if small else 20
    if options.out is not None:
        _make_out(options.out)
        if before is None:
            clear(options.out)
        if options.checkpoint_every is not None:
            save(options)

    from ..checkpoints import CheckpointError
    from ..optimizer import OPTIMIZERS
    from ..trainer import DivergedError, TrainingInterrupted, fit

    optimizer = OPTIMIZERS[options.optimizer](lr=options.lr)
    if before is not None:
        say(f"Going on in {options.out}")
    say(
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test examples, "
        f"{data.classes} classes\n{network!r}, {optimizer!r}, batches of {options.batch_size}\n"
    )
    if not options.quiet:
        _announce_compilation()
    table = _Table(sys.stdout)
    try:
        history = fit(
            network,
            data.x_train,
            data.t_train,
            optimizer=optimizer,
            batch_size=options.batch_size,
            epochs=options.epochs,
            iterations=options.iterations,
            validation_data=(data.x_test, data.t_test),
            sampling=options.sampling,
            seed=options.seed,
            callbacks=() if options.quiet else (table.line,),
            progress=sys.stderr.isatty() and not options.quiet,
            checkpoints=checkpoints(options),
            resume=before is not None,
        )
    except CheckpointError as error:
        if before is not None:  # nothing was trained: the options of before still hold
            before.out = options.out
            save(before)
        raise CommandFailed(str(error)) from error
    except DivergedError as error:
        if options.out is not None:
            _keep_history(options.out, error.history)
        raise CommandFailed(f"diverged: {error}") from error
    except TrainingInterrupted as error:
        done = len(error.history)
        print(f"\nInterrupted after {_steps(done)}.", file=sys.stderr)
        if error.unsaved:
            print(f"fastbp train: {error.unsaved}", file=sys.stderr)
        if options.out is not None:
            kept = _keep(options.out, network, data, error.history)
            print(f"Kept what there is: {', '.join(map(str, kept))}", file=sys.stderr)
        if options.checkpoint_every is not None:
            print(f"Go on with: fastbp train --resume {options.out}", file=sys.stderr)
        return 130
    say(_summary(network, data, history))
    if options.out is not None:
        kept = _keep(options.out, network, data, history)
        say("\nKept " + ", ".join(map(str, kept)))
    return 0


def _silent(*_: object) -> None:
    pass


# --- before ---------------------------------------------------------------------------------------


def _check_out(out: Path, force: bool) -> None:
    """Refuse what cannot or must not be written to, before anything is computed."""
    if find_spec("safetensors") is None:
        raise UsageError("argument --out: model files need `pip install 'fastbp[train]'`")
    if out.exists() and not out.is_dir():
        raise UsageError(f"argument --out: {out} is a file, expected a folder")
    if out.exists() and not force:
        raise UsageError(f"argument --out: {out} exists; choose another, or --force to write there")


def _make_out(out: Path) -> None:
    """Make the folder and see that files can be made in it."""
    try:
        make_folder(out)
        remove_leftovers(out)
    except OSError as error:
        raise UsageError(f"argument --out: cannot write to {out}: {error.strerror}") from error


def _announce_compilation() -> None:
    """Say why the first run takes some seconds before its first line."""
    from ..kernels.jit import cache_folder

    folder = cache_folder()
    if folder is not None and not any(folder.rglob("*.nbc")):
        print("Compiling for this machine; the next run starts at once.", file=sys.stderr)


# --- during ---------------------------------------------------------------------------------------


class _Table:
    """One line an epoch, above the progress bar."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.begun = False

    def line(self, report: Report) -> None:
        from tqdm import tqdm

        if not self.begun:
            self.begun = True
            head = f"{'epoch':>6} {'loss':>8} {'training':>9} {'test':>9} {'examples/s':>12}"
            tqdm.write(head, file=self.stream)
        loss = "" if math.isnan(report.train_loss) else f"{report.train_loss:.4f}"
        speed = report.examples_per_second
        speed_text = "" if math.isnan(speed) else f"{speed:,.0f}"
        epoch = f"{report.epoch:.0f}" if report.epoch.is_integer() else f"{report.epoch:.2f}"
        tqdm.write(
            f"{epoch:>6} {loss:>8} {report.train_acc:>9.2%} {report.test_acc:>9.2%} "
            f"{speed_text:>12}",
            file=self.stream,
        )
        self.stream.flush()


# --- after ----------------------------------------------------------------------------------------


def _summary(network: Any, data: Data, history: History) -> str:
    """Return what a person wants to know at the end."""
    guesses = network.predict(data.x_test).argmax(axis=1)
    wrong = guesses != data.t_test
    right = len(wrong) - int(wrong.sum())
    lines = [
        "",
        f"Test accuracy {right / len(wrong):.2%}: {right:,} of {len(wrong):,} right, after "
        f"{_steps(len(history))} in {history.times[-1]:.2f} s.",
    ]
    losses = history.train_loss_list
    curve = _sparkline(np.log(np.maximum(losses, 1e-12)))
    if curve:
        lines.append(f"Loss {losses[0]:.3f} {curve} {losses[-1]:.3f} (logarithmic)")
    pairs, counts = np.unique(
        np.stack([data.t_test[wrong], guesses[wrong]]), axis=1, return_counts=True
    )
    worst = np.argsort(-counts, kind="stable")[:3]
    if len(worst):
        named = [f"{pairs[0, i]} read as {pairs[1, i]} ({counts[i]} times)" for i in worst]
        lines.append("Most often wrong: " + ", ".join(named).replace("(1 times)", "(once)"))
    return "\n".join(lines)


def _steps(n: int) -> str:
    return f"{n:,} step" if n == 1 else f"{n:,} steps"


def _sparkline(values: Any, width: int = 40) -> str:
    """Draw values as a line of blocks, or nothing where the terminal has no such characters."""
    blocks = "▁▂▃▄▅▆▇█"
    try:
        blocks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ""
    means = [float(np.mean(part)) for part in np.array_split(values, min(width, len(values)))]
    low, high = min(means), max(means)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value - low) * scale)] for value in means)


def _keep_history(out: Path, history: History) -> Path:
    path = out / "history.json"
    history.save(path)
    return path


def _keep(out: Path, network: Any, data: Data, history: History) -> list[Path]:
    """Write the results; returns the files."""
    from ..checkpoint import save_network

    model = out / "model.safetensors"
    notes = {"data": data.name, "image_shape": data.image_shape}
    if data.name not in ("digits", "mnist"):
        notes["data"] = Path(data.name).name
    save_network(model, network, notes)
    kept = [model, _keep_history(out, history)]
    if find_spec("matplotlib") is None:
        return kept
    from ..plot import mistakes, write_figure

    history.plot(out / "curves.png")
    kept.append(out / "curves.png")
    if data.image_shape is not None:
        figure = mistakes(network, data.x_test, data.t_test, data.image_shape)
        write_figure(figure, out / "mistakes.png")
        kept.append(out / "mistakes.png")
    return kept
