"""Training: ``fit``, and the book's ``Trainer``.

``fit`` is one loop of Python over compiled calls of a few milliseconds.  Between them it does what
a person wants done while a network trains: it measures, calls back, moves the progress bar, and
stops on Ctrl-C or when the loss is no longer a number.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from ._arrays import (
    as_plain,
    as_targets,
    nonfinite,
    positive_int,
    require_finite,
    require_numbers,
)
from ._interrupt import Held, Taken
from .checkpoints import CheckpointError, Checkpoints, Keeper
from .examples import SparseRows
from .history import History
from .network import Network
from .optimizer import OPTIMIZERS, SGD, Optimizer
from .report import Bar, DivergedError, Meter, Report, TrainingInterrupted
from .sampling import Batches
from .steps import Examples, steps_for

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "DivergedError",
    "History",
    "Report",
    "Trainer",
    "TrainingInterrupted",
    "fit",
]

# What `fit` trains for when neither epochs nor iterations are given.
DEFAULT_EPOCHS = 20


def fit(
    network: Network,
    x: Any,
    t: Any,
    *,
    optimizer: Optimizer | None = None,
    batch_size: int = 100,
    epochs: int | None = None,
    iterations: int | None = None,
    validation_data: tuple[Any, Any] | None = None,
    sampling: str = "shuffle",
    seed: int | None = None,
    callbacks: Sequence[Callable[[Report], object]] = (),
    progress: bool | None = None,
    evaluate_sample: int | None = None,
    allow_nonfinite: bool = False,
    threads: int | None = None,
    checkpoints: str | PathLike[str] | Checkpoints | None = None,
    resume: bool = False,
) -> History:
    """Train a network on mini-batches.

    Parameters
    ----------
    network : Network
        :class:`TwoLayerNet` or :class:`MultiLayerNet`; its parameters are changed in place.
    x : (N, D) or (N, ...) array_like, or scipy.sparse (N, D)
        Inputs, any real numbers; each batch is computed in the parameters' type.  Where less than
        a third of them are not zero, the zeros are skipped.  Must not change while ``fit`` runs.
    t : (N,) integer labels, or (N, C) one-hot rows or probabilities
    optimizer : Optimizer, default ``SGD(lr=0.1)``
    batch_size : int, default 100
        At most N examples are in a batch.
    epochs, iterations : int, optional
        How long: passes over the data, or steps.  One of them; 20 epochs by default.
    validation_data : (x, t), optional
        Measured at every report, never trained on.
    sampling : {'shuffle', 'choice'}
        'shuffle' takes every example once an epoch (the last batch may be smaller); 'choice' draws
        each batch with replacement, as the book does.
    seed : int, optional
        Of the sampling: the same seed gives the same batches.  Without it 'choice' draws from
        NumPy's global generator, as the book does, and 'shuffle' from fresh entropy.
    callbacks : sequence of callables
        Each is called with a :class:`Report` at the start, after every epoch and at the end.  One
        that returns True stops the training.
    progress : bool, optional
        Whether to draw a progress bar; by default on a terminal, when it takes over two seconds.
    evaluate_sample : int, optional
        Measure on the first so many examples only.
    allow_nonfinite : bool, default False
        Accept NaN and infinity in x, and go on when the loss becomes one.
    threads : int, optional
        The number of threads of the compiled loop.  By default what was set for the process, or
        what turns out faster while training; the results are the same to the last bit.
    checkpoints : path-like or Checkpoints, optional
        A folder that gets a checkpoint every 1000 steps, at the end and on Ctrl-C; the last three
        stay, and the best network.  :class:`Checkpoints` sets these numbers.  Needs the extra
        ``train``.
    resume : bool, default False
        Go on from the newest valid checkpoint in the folder; at the start, if there is none.  With
        the same arguments the results have the bits of a training that was never stopped (and
        versions and processor are the same).  ``epochs`` or ``iterations`` may be other ones; what
        a callback has stopped goes on.

    Returns
    -------
    History

    Raises
    ------
    CheckpointError
        When no checkpoint is valid, when the newest valid one is of another training, and without
        ``resume`` when there is one.
    DivergedError
        When the loss becomes NaN, infinite, or over an epoch 1000 times that of guessing; it has
        the history.
    IndexError
        For a label outside [0, C).
    ModuleNotFoundError
        For checkpoints without safetensors.
    OSError
        When a checkpoint cannot be written; those before are as they were, and the parameters
        those of now.
    RuntimeError
        When a callback changes layers or shapes.
    TrainingInterrupted
        On Ctrl-C, a KeyboardInterrupt; it has the history.
    TypeError, ValueError
        For arguments that are none of these, before anything is changed.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"fit: network is of type {type(network).__name__}, "
            "expected TwoLayerNet, MultiLayerNet or another fastbp Network"
        )
    optimizer = SGD(lr=0.1) if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"fit: optimizer is {optimizer!r}, expected one of fastbp.optimizer, "
            "such as SGD(lr=0.1)"
        )
    x, t = _examples(("x", "t"), x, t, network, allow_nonfinite)
    validation = None
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError("fit: validation_data is not a pair (x, t)")
        names = ("validation_data[0]", "validation_data[1]")
        validation = _examples(names, *validation_data, network, allow_nonfinite)
    if not np.iterable(callbacks) or not all(map(callable, callbacks)):
        raise TypeError(f"fit: callbacks is {callbacks!r}, expected a list of callables")
    batch_size = min(positive_int("fit", "batch_size", batch_size), len(x))
    per_epoch = -(-len(x) // batch_size)
    if epochs is not None and iterations is not None:
        raise ValueError("fit: epochs and iterations are both given, expected one of them")
    if iterations is not None:
        total = positive_int("fit", "iterations", iterations)
    else:
        total = per_epoch * positive_int(
            "fit", "epochs", DEFAULT_EPOCHS if epochs is None else epochs
        )
    sample = (
        None if evaluate_sample is None else positive_int("fit", "evaluate_sample", evaluate_sample)
    )
    threads = None if threads is None else positive_int("fit", "threads", threads)
    batches = Batches(len(x), batch_size, sampling, seed)
    steps = steps_for(network, optimizer, (x, t), allow_nonfinite, batch_size, threads)

    history = History(
        settings={
            "network": repr(network),
            "optimizer": repr(optimizer),
            "batch_size": batch_size,
            "sampling": sampling,
            "seed": None if seed is None else operator.index(seed),
            "examples": len(x),
            "iterations": total,
        }
    )
    measure = Meter(steps, (x, t), validation, sample, history, total, per_epoch, allow_nonfinite)
    keeper = None
    if checkpoints is not None:
        if not isinstance(checkpoints, Checkpoints):
            checkpoints = Checkpoints(checkpoints)
        keeper = Keeper(checkpoints, steps, batches, measure)
        keeper.begin(resume)
    elif resume:
        raise ValueError("fit: resume=True without checkpoints, expected the folder that has them")
    whole = True  # whether parameters, batches and history are of the same step
    # Overflow is what divergence looks like; it gets an error of its own, not NumPy's warning.
    warnings = np.geterr()
    quiet = np.errstate(over="ignore", invalid="ignore")

    def report() -> bool:
        """Measure, and tell everybody; returns whether one of them wants to stop."""
        if keeper is not None:
            keeper.hold()
        told = measure(optimizer.lr)
        bar.loss(told.train_loss)
        if keeper is not None:
            keeper.note()
        stop = any([callback(told) is True for callback in callbacks])  # noqa: C419 - call them all
        if callbacks:  # which may have changed the parameters
            with Held():
                steps.take_up()
        if keeper is not None:
            keeper.release()
        measure.resume()
        return stop

    def train() -> None:
        """Take the steps; what stops them finds parameters, batches and history of one step."""
        nonlocal whole
        stop = measure.is_due() and report()
        while len(history) < total and not stop:
            count = steps.batches_a_call()
            count = min(count, total - len(history), per_epoch - len(history) % per_epoch)
            if keeper is not None:
                count = min(count, keeper.until())
            with Held():
                whole = False
                rows, begins = batches.take(count)
                losses = steps.run(rows, begins)
                diverged = not (math.isfinite(losses[-1]) or allow_nonfinite)
                history.train_loss_list += losses[:-1] if diverged else losses
                measure.examples += len(rows)
                whole = not diverged
            if diverged:
                raise DivergedError(len(history), losses[-1], optimizer.lr, history)
            bar.forward(len(losses))
            stop = measure.is_due() and report()
            if keeper is not None:
                keeper.save_if_due()
        if keeper is not None:
            keeper.save()

    try:
        # Callbacks are to find SIGINT as the user has left it.
        taken = contextlib.nullcontext() if callbacks else Taken()
        with quiet, taken, Bar(total, len(history), progress) as bar:
            try:
                train()
            except DivergedError:
                with Held():
                    steps.publish()
                    measure.restore_finite()
                raise
            finally:
                with Held():
                    steps.publish()
    except KeyboardInterrupt:
        np.seterr(**warnings)  # it may have come just before the block that does so, or after
        with Held():
            steps.publish()  # it may have come just before that above
            if not allow_nonfinite:
                measure.restore_finite()
        unsaved = ""
        if keeper is not None:
            try:
                unsaved = keeper.save() if whole else "no checkpoint: the last step is not whole"
            except OSError as error:
                unsaved = str(error)
        raise TrainingInterrupted(history, unsaved) from None
    return history


def _examples(
    names: tuple[str, str], x: Any, t: Any, network: Network, allow_nonfinite: bool
) -> Examples:
    """Return checked inputs and targets."""
    where, name = "fit", names[0]
    D, C = network.sizes[0], network.sizes[-1]
    sparse = hasattr(x, "tocsr")  # SciPy's matrices, which need not be installed
    x = SparseRows(where, name, x) if sparse else as_plain(where, name, x)
    require_numbers(where, name, x.values if sparse else x)
    if len(x.shape) < 2 or math.prod(x.shape[1:]) != D:
        raise ValueError(f"{where}: {name} has shape {x.shape}, expected (N, {D})")
    if not len(x):
        raise ValueError(f"{where}: {name} has shape {x.shape}, no examples")
    t = as_targets(where, t, len(x), C, network.dtype, names[1])
    if sparse:
        bad = None if allow_nonfinite else x.first_nonfinite()
        if bad is not None:
            raise nonfinite(where, name, *bad)
        return x, t
    if x.dtype.kind == "f" and not allow_nonfinite:
        require_finite(where, name, x)
    return x, t


class Trainer:
    """The book's ``common.trainer.Trainer``, on top of :func:`fit`.

    Parameters
    ----------
    network : Network
    x_train, t_train, x_test, t_test : array
        As for :func:`fit`.
    epochs : int, default 20
    mini_batch_size : int, default 100
    optimizer : str
        'SGD', 'Momentum', 'Nesterov', 'AdaGrad', 'RMSprop' or 'Adam', in any case.
    optimizer_param : dict
        Its arguments; ``{'lr': 0.01}`` by default.
    evaluate_sample_num_per_epoch : int, optional
        Measure accuracy on the first so many examples only.
    verbose : bool, default True
        Print the accuracies of each epoch, and the final one.

    Attributes
    ----------
    train_loss_list, train_acc_list, test_acc_list : list of float
        The losses of all steps; the accuracies at the start of each epoch.
    network, optimizer
    history : History or None
        Of the last ``train``.

    Notes
    -----
    The book's ``iter_per_epoch`` is a fraction when the batch size does not divide the number of
    examples, and epochs are then missed; here an epoch is ``ceil(N / mini_batch_size)`` steps.
    """

    def __init__(
        self,
        network: Network,
        x_train: Any,
        t_train: Any,
        x_test: Any,
        t_test: Any,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        if str(optimizer).lower() not in OPTIMIZERS:
            raise ValueError(
                f"Trainer: optimizer is {optimizer!r}, expected one of {sorted(OPTIMIZERS)}"
            )
        parameters = {"lr": 0.01} if optimizer_param is None else dict(optimizer_param)
        self.network = network
        self.optimizer = OPTIMIZERS[optimizer.lower()](**parameters)
        self.x_train, self.t_train = x_train, t_train
        self.x_test, self.t_test = x_test, t_test
        self.epochs = epochs
        self.batch_size = mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.verbose = verbose
        self.history: History | None = None
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    def train(self) -> None:
        """Train for ``epochs`` epochs on batches drawn from NumPy's global generator.

        Raises
        ------
        DivergedError, IndexError, TypeError, ValueError
            As :func:`fit`.
        """
        self.history = fit(
            self.network,
            self.x_train,
            self.t_train,
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            epochs=self.epochs,
            validation_data=(self.x_test, self.t_test),
            sampling="choice",
            evaluate_sample=self.evaluate_sample_num_per_epoch,
            callbacks=[self._print] if self.verbose else [],
        )
        self.train_loss_list += self.history.train_loss_list
        # As in the book, an accuracy for the start of each epoch; the last one is printed.
        self.train_acc_list += self.history.train_acc_list[:-1]
        self.test_acc_list += self.history.test_acc_list[:-1]
        if self.verbose:
            accuracy = self.network.accuracy(self.x_test, self.t_test)
            print("=============== Final Test Accuracy ===============")
            print(f"test acc:{accuracy:.4f}")

    def _print(self, report: Report) -> None:
        if report.step == report.total_steps:
            return  # the final accuracy has a line of its own
        print(
            f"=== epoch:{report.epoch:g}, train acc:{report.train_acc:.4f}, "
            f"test acc:{report.test_acc:.4f} ==="
        )
