"""What training tells: reports for callbacks, the progress bar, and the errors that end it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import Array
from ._interrupt import Held
from .history import History
from .network import Network

if TYPE_CHECKING:
    from .steps import CompiledSteps, Examples, LayerSteps

__all__ = ["Bar", "DivergedError", "Meter", "Report", "TrainingInterrupted"]

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
    unsaved : str
        Why there is no checkpoint of this moment, where one was asked for.
    """

    def __init__(self, history: History, unsaved: str = "") -> None:
        self.history = history
        self.unsaved = unsaved
        also = f"; {unsaved}" if unsaved else ""
        super().__init__(f"training interrupted after {len(history)} steps{also}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.history, self.unsaved)


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


class Meter:
    """Takes the measurements that become reports and lines of the history."""

    def __init__(
        self,
        steps: CompiledSteps | LayerSteps,
        training: Examples,
        validation: Examples | None,
        sample: int | None,
        history: History,
        total: int,
        per_epoch: int,
        allow_nonfinite: bool,
    ) -> None:
        self.steps = steps
        self.network: Network = steps.network
        self.guessing = math.log(max(2, self.network.sizes[-1]))
        self.allow_nonfinite = allow_nonfinite
        self.training, self.validation, self.sample = training, validation, sample
        self.history = history
        self.total = total
        self.per_epoch = per_epoch
        self.examples = 0  # trained on since the last report
        self.begin = self.resumed = time.perf_counter()
        self.reported = 0
        self.last_good: dict[str, Array] = {}

    def go_on(
        self, last_good: dict[str, Array], examples: int, seconds: float, elapsed: float
    ) -> None:
        """Go on from a checkpoint; the history is that of then already.

        Parameters
        ----------
        last_good : dict of arrays
            The parameters of the last report.
        examples, seconds : int, float
            Trained since the last report.
        elapsed : float
            Seconds since ``fit`` began.
        """
        now = time.perf_counter()
        self.last_good, self.examples = last_good, examples
        self.begin, self.resumed = now - elapsed, now - seconds
        self.reported = self.history.steps[-1] if self.history.steps else 0

    def is_due(self) -> bool:
        """Whether there should be a report now and is none: at the start and after each epoch."""
        step = len(self.history)
        last = self.history.steps[-1] if self.history.steps else -1
        return last != step and (step % self.per_epoch == 0 or step == self.total)

    def is_sound(self) -> bool:
        """Whether training goes well, as far as one can tell without measuring.

        A step after this may be the one that notices otherwise.
        """
        if self.allow_nonfinite:
            return True
        finite = all(np.isfinite(p).all() for p in self.network.params.values())
        return finite and not self._is_hopeless()

    def _mean_loss(self) -> float:
        """Return the mean loss of the steps since the last report."""
        losses = self.history.train_loss_list[self.reported :]
        return sum(losses) / len(losses) if losses else math.nan

    def _is_hopeless(self) -> bool:
        losses = self.history.train_loss_list
        return bool(losses) and self._mean_loss() > HOPELESS * max(losses[0], self.guessing)

    def restore_finite(self) -> None:
        """Put the parameters of the last report back, if those of now are not finite."""
        params = self.network.params
        if not all(np.isfinite(p).all() for p in params.values()):
            for key, good in self.last_good.items():
                params[key][...] = good

    def resume(self) -> None:
        """Begin to count the time of the steps that follow."""
        self.resumed = time.perf_counter()

    def _measure(self, examples: Examples) -> tuple[float, float]:
        count = len(examples[0])
        return self.steps.measure(examples, min(count, self.sample or count))

    def __call__(self, learning_rate: float) -> Report:
        """Measure, note it in the history, and return what callbacks are told."""
        history, step = self.history, len(self.history.train_loss_list)
        training_time = time.perf_counter() - self.resumed
        mean_loss = self._mean_loss()
        trained = step > self.reported
        train_loss, train_acc = self._measure(self.training)
        if not (math.isfinite(train_loss) or self.allow_nonfinite):
            raise DivergedError(step, train_loss, learning_rate, history)
        if not self.allow_nonfinite and self._is_hopeless():
            what = "the mean loss since the last report"
            raise DivergedError(step, mean_loss, learning_rate, history, what)
        test_loss: float | None = None
        test_acc: float | None = None
        self.steps.publish()
        self.last_good = {key: p.copy() for key, p in self.network.params.items()}
        if self.validation is not None:
            test_loss, test_acc = self._measure(self.validation)
        now = time.perf_counter()
        speed = self.examples / training_time if trained else math.nan
        with Held():  # lists of one length
            if test_loss is not None and test_acc is not None:
                history.test_loss_list.append(test_loss)
                history.test_acc_list.append(test_acc)
            history.train_acc_list.append(train_acc)
            history.steps.append(step)
            history.times.append(now - self.begin)
            history.examples_per_second.append(speed if trained else 0.0)
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


class Bar:
    """The progress bar of a training.

    Python loses what is raised while an object dies, and tqdm's have a ``__del__``.  So Ctrl-C
    waits wherever a bar is at work, and until it is gone.

    Parameters
    ----------
    total, done : int
        Steps.
    progress : bool, optional
        As for ``fit``.
    """

    def __init__(self, total: int, done: int, progress: bool | None) -> None:
        self._arguments: dict[str, Any] = {
            "total": total,
            "initial": done,
            "disable": None if progress is None else not progress,
            "delay": BAR_AFTER_SECONDS if progress is None else 0,
        }

    def __enter__(self) -> Bar:
        try:
            with Held():
                from tqdm.auto import tqdm

                self._bar = tqdm(unit="step", leave=False, dynamic_ncols=True, **self._arguments)
        except KeyboardInterrupt:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        with Held():
            if hasattr(self, "_bar"):
                self._bar.close()
                del self._bar

    def loss(self, loss: float) -> None:
        """Show a loss."""
        with Held():
            self._bar.set_postfix_str(f"loss {loss:.4f}")

    def forward(self, steps: int) -> None:
        """Move the bar."""
        with Held():
            self._bar.update(steps)
