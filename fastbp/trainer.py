"""Training: ``fit``, the record it returns, and the book's ``Trainer``.

``fit`` is one loop of Python over mini-batches.  Between them it does what a person wants done
while a network trains: it measures, calls back, moves the progress bar, and stops on Ctrl-C or when
the loss is no longer a number.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._arrays import Array, as_array, as_plain, as_targets, positive_int, require_finite
from ._interrupt import Interrupt
from .history import History
from .network import Network
from .optimizer import OPTIMIZERS, SGD, Optimizer
from .sampling import batches

__all__ = ["DivergedError", "History", "Report", "Trainer", "TrainingInterrupted", "fit"]

# What `fit` trains for when neither epochs nor iterations are given.
DEFAULT_EPOCHS = 20

# A mean loss this many times that of the first step, and of guessing, has diverged too: at an
# absurd learning rate units die, and what is left of the network may stay finite.
HOPELESS = 1000.0

# A bar that would be gone at once is never drawn.
BAR_AFTER_SECONDS = 2.0


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite, or over an epoch 1000 times that of guessing.

    The parameters are those that gave this loss, unless they are not finite themselves: then those
    of the last report.

    Attributes
    ----------
    step : int
        Number of the step whose loss it was, from 0.
    last_loss : float or None
        The last finite loss.
    learning_rate : float
    history : History
        Everything up to that step.
    """

    def __init__(
        self,
        step: int,
        loss: float,
        learning_rate: float,
        history: History,
        what: str = "the loss",
    ) -> None:
        losses = history.train_loss_list
        self.step = step
        self.last_loss = losses[-1] if losses else None
        self.learning_rate = learning_rate
        self.history = history
        self._arguments = (step, loss, learning_rate, history, what)
        before = "" if self.last_loss is None else f" (the step before: {self.last_loss:g})"
        super().__init__(
            f"{what} is {loss:g} at step {step}{before} with learning rate {learning_rate:g}; "
            f"try {learning_rate / 10:g}, scale the inputs to about 1, or start with smaller "
            "weights"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during ``fit``.  The parameters are those of the last whole update.

    Attributes
    ----------
    history : History
        Everything up to then.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        super().__init__(f"training interrupted after {len(history)} steps")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.history,)


@dataclass(frozen=True)
class Report:
    """What a callback of ``fit`` gets at the start, after each epoch, and at the end.

    Attributes
    ----------
    step, total_steps : int
        Steps done and to do in all.
    epoch : float
        Passes over the training data so far.
    train_loss : float
        Mean loss of the steps since the last report; NaN in the first.
    train_acc : float
    test_loss, test_acc : float or None
        On the validation data, where there are any.
    examples_per_second : float
        Of the steps since the last report, evaluation not counted; NaN in the first.
    elapsed : float
        Seconds since ``fit`` began.
    network : Network
        The network as it is now.
    history : History
        Everything so far.
    """

    step: int
    total_steps: int
    epoch: float
    train_loss: float
    train_acc: float
    test_loss: float | None
    test_acc: float | None
    examples_per_second: float
    elapsed: float
    network: Network
    history: History


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
) -> History:
    """Train a network on mini-batches.

    Parameters
    ----------
    network : Network
        :class:`TwoLayerNet` or :class:`MultiLayerNet`; its parameters are changed in place.
    x : (N, D) or (N, ...) array_like
        Inputs, any real numbers; each batch is computed in the parameters' type.
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

    Returns
    -------
    History

    Raises
    ------
    DivergedError
        When the loss becomes NaN, infinite, or over an epoch 1000 times that of guessing; it has
        the history.
    IndexError
        For a label outside [0, C).
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
    rows_of_batches = batches(len(x), batch_size, sampling, seed)

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
    measure = _Meter(
        network, (x, t), validation, sample, history, total, per_epoch, allow_nonfinite
    )
    # Overflow is what divergence looks like; it gets an error of its own, not NumPy's warning.
    quiet = np.errstate(over="ignore", invalid="ignore")
    try:
        with quiet, Interrupt() as interrupt, _progress_bar(total, progress) as bar:
            report = measure(optimizer.lr, interrupt)
            stop = _call(callbacks, report)
            measure.resume()
            while len(history) < total and not stop:
                until = min(total, len(history) + per_epoch)
                while len(history) < until:
                    rows = next(rows_of_batches)
                    loss, grads = network.loss_and_gradient(x[rows], t[rows])
                    if not (math.isfinite(loss) or allow_nonfinite):
                        raise DivergedError(len(history), loss, optimizer.lr, history)
                    with interrupt.held():
                        optimizer.update(network.params, grads)
                        history.train_loss_list.append(loss)
                    measure.examples += len(rows)
                    bar.update()
                report = measure(optimizer.lr, interrupt)
                bar.set_postfix_str(f"loss {report.train_loss:.4f}")
                stop = _call(callbacks, report)
                measure.resume()
    except KeyboardInterrupt:
        raise TrainingInterrupted(history) from None
    except DivergedError:
        measure.restore_finite()
        raise
    return history


def _examples(
    names: tuple[str, str], x: Any, t: Any, network: Network, allow_nonfinite: bool
) -> tuple[Array, Array]:
    """Return checked inputs and targets."""
    where, name = "fit", names[0]
    D, C = network.sizes[0], network.sizes[-1]
    x = as_plain(where, name, x)
    if x.ndim < 2 or math.prod(x.shape[1:]) != D:
        raise ValueError(f"{where}: {name} has shape {x.shape}, expected (N, {D})")
    if not len(x):
        raise ValueError(f"{where}: {name} has shape {x.shape}, no examples")
    as_array(where, name, x[:1], network.dtype)  # the type, without converting everything
    t = as_targets(where, t, len(x), C, network.dtype, names[1])
    if x.dtype.kind == "f" and not allow_nonfinite:
        require_finite(where, name, x)
    return x, t


class _Meter:
    """Takes the measurements that become reports and lines of the history."""

    def __init__(
        self,
        network: Network,
        training: tuple[Array, Array],
        validation: tuple[Array, Array] | None,
        sample: int | None,
        history: History,
        total: int,
        per_epoch: int,
        allow_nonfinite: bool,
    ) -> None:
        self.network = network
        self.guessing = math.log(max(2, network.sizes[-1]))
        self.allow_nonfinite = allow_nonfinite
        self.training = training[0][:sample], training[1][:sample]
        self.validation = validation and (validation[0][:sample], validation[1][:sample])
        self.history = history
        self.total = total
        self.per_epoch = per_epoch
        self.examples = 0  # trained on since the last report
        self.begin = self.resumed = time.perf_counter()
        self.reported = 0
        self.last_good: dict[str, Array] = {}

    def restore_finite(self) -> None:
        """Put the parameters of the last report back, if those of now are not finite."""
        params = self.network.params
        if not all(np.isfinite(p).all() for p in params.values()):
            for key, good in self.last_good.items():
                params[key][...] = good

    def resume(self) -> None:
        """Begin to count the time of the steps that follow."""
        self.resumed = time.perf_counter()

    def __call__(self, learning_rate: float, interrupt: Interrupt) -> Report:
        history, step = self.history, len(self.history.train_loss_list)
        training_time = time.perf_counter() - self.resumed
        losses = history.train_loss_list[self.reported :]
        train_loss, train_acc = self.network.evaluate(*self.training)
        mean_loss = sum(losses) / len(losses) if losses else math.nan
        if not (math.isfinite(train_loss) or self.allow_nonfinite):
            raise DivergedError(step, train_loss, learning_rate, history)
        if losses and mean_loss > HOPELESS * max(history.train_loss_list[0], self.guessing):
            what = "the mean loss since the last report"
            raise DivergedError(step, mean_loss, learning_rate, history, what)
        test_loss: float | None = None
        test_acc: float | None = None
        self.last_good = {key: p.copy() for key, p in self.network.params.items()}
        if self.validation is not None:
            test_loss, test_acc = self.network.evaluate(*self.validation)
        now = time.perf_counter()
        speed = self.examples / training_time if losses else math.nan
        with interrupt.held():  # lists of one length
            if test_loss is not None and test_acc is not None:
                history.test_loss_list.append(test_loss)
                history.test_acc_list.append(test_acc)
            history.train_acc_list.append(train_acc)
            history.steps.append(step)
            history.times.append(now - self.begin)
            history.examples_per_second.append(speed if losses else 0.0)
        self.examples, self.reported = 0, step
        return Report(
            step=step,
            total_steps=self.total,
            epoch=step / self.per_epoch,
            train_loss=mean_loss,
            train_acc=train_acc,
            test_loss=test_loss,
            test_acc=test_acc,
            examples_per_second=speed,
            elapsed=now - self.begin,
            network=self.network,
            history=history,
        )


def _call(callbacks: Sequence[Callable[[Report], object]], report: Report) -> bool:
    """Call every callback; whether one of them asked to stop."""
    return any([callback(report) is True for callback in callbacks])  # noqa: C419 - call them all


def _progress_bar(total: int, progress: bool | None) -> Any:
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        unit="step",
        disable=None if progress is None else not progress,
        delay=BAR_AFTER_SECONDS if progress is None else 0,
        leave=False,
        dynamic_ncols=True,
    )


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
