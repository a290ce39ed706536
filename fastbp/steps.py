"""How training takes its steps: compiled, or layer by layer where the compiled loop does not fit.

Both have the same face, which ``fit`` drives: ``run`` some batches, ``measure``, and bring the
parameters and the optimizer's state to the user (``publish``) or back (``take_up``).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ._arrays import Array
from .engine import CONSECUTIVE_ROWS, Engine
from .examples import SparseRows, as_data, as_sparse_data, is_worth_compressing
from .kernels.tables import Data, Rule
from .network import Network
from .optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop

__all__ = ["CompiledSteps", "LayerSteps", "steps_for"]

COMPILED_OPTIMIZERS = (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)

# Rows of a sparse matrix that are measured at a time where only dense ones can be.
DENSE_ROWS = 1024

Examples = tuple[Array | SparseRows, Array]


class LayerSteps:
    """Steps through a network's own methods, one batch at a time.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    training : (x, t)
        Checked arrays.
    allow_nonfinite : bool
        Go on when a loss is not finite.
    """

    def __init__(
        self, network: Network, optimizer: Optimizer, training: Examples, allow_nonfinite: bool
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.x, self.t = training
        self.allow_nonfinite = allow_nonfinite

    def batches_a_call(self) -> int:
        """Return how many batches ``run`` should get."""
        return 1

    def run(self, rows: Array, begins: Array) -> list[float]:
        """Train on batches; returns their losses, the last of which may be the one not finite."""
        losses = []
        for begin, end in itertools.pairwise(begins):
            batch = rows[begin:end]
            loss, grads = self.network.loss_and_gradient(self.x[batch], self.t[batch])
            losses.append(loss)
            if not (math.isfinite(loss) or self.allow_nonfinite):
                break
            self.optimizer.update(self.network.params, grads)
        return losses

    def measure(self, examples: Examples, count: int) -> tuple[float, float]:
        """Return loss and accuracy over the first examples."""
        x, t = examples
        if not isinstance(x, SparseRows):
            return self.network.evaluate(x[:count], t[:count])
        sums = np.zeros(2)
        for start in range(0, count, DENSE_ROWS):
            rows = np.arange(start, min(count, start + DENSE_ROWS))
            sums += np.multiply(self.network.evaluate(x[rows], t[rows]), len(rows))
        return float(sums[0]) / count, float(sums[1]) / count

    def publish(self) -> None:
        """Do nothing: the network's parameters are the ones in use."""

    def take_up(self) -> None:
        """Do nothing, for the same reason."""


class CompiledSteps:
    """Steps in the compiled loop, a few milliseconds of them in each call.

    Parameters
    ----------
    network, optimizer, training, allow_nonfinite
        As for :class:`LayerSteps`.
    batch_size : int
    threads : int, optional
        By default what turns out faster.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        training: Examples,
        allow_nonfinite: bool,
        batch_size: int,
        threads: int | None,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self._batch_size = batch_size
        # 0 times NaN is NaN, but nothing where zeros are skipped.
        self._sparse = not allow_nonfinite and is_worth_compressing(training[0])
        self.engine = Engine(
            network.sizes,
            network.activation,
            network.dtype,
            max(batch_size, CONSECUTIVE_ROWS),
            len(optimizer._slots),
            threads,
        )
        self._prepared: list[tuple[Examples, Data]] = []
        self.data = self._prepare(training)
        self._ahead = False  # whether the loop has taken steps the user's arrays do not show
        self.stop = 0 if allow_nonfinite else 1
        self.take_up()

    def _prepare(self, examples: Examples) -> Data:
        """Return examples as the loop reads them, made once."""
        for given, data in self._prepared:
            if given[0] is examples[0] and given[1] is examples[1]:
                return data
        x, t = examples
        if self._sparse or isinstance(x, SparseRows):
            data = as_sparse_data("fit", x, t, self.engine.plan)
        else:
            data = as_data("fit", x, t, self.network.dtype)
        self._prepared.append((examples, data))
        return data

    def batches_a_call(self) -> int:
        """Return how many batches ``run`` should get; what it needs is compiled then."""
        self.engine.load("train", self.data, self._rule(), self._batch_size)
        return self.engine.batches_a_call("train", self.data, self._batch_size)

    def run(self, rows: Array, begins: Array) -> list[float]:
        """Train on batches; returns their losses, the last of which may be the one not finite."""
        rule = self._rule()
        self._ahead = True
        losses: list[float] = self.engine.run("train", self.data, rule, rows, begins)[0].tolist()
        updates = len(losses)
        if self.stop and not math.isfinite(losses[-1]):
            updates -= 1
        if isinstance(self.optimizer, Adam):
            self.optimizer.iter += updates
        return losses

    def _rule(self) -> Rule:
        return self.optimizer._rule()._replace(
            decay=self.network.weight_decay_lambda,
            stop=self.stop,
            loss_eps=self.network.last_layer.eps,
        )

    def measure(self, examples: Examples, count: int) -> tuple[float, float]:
        """Return loss and accuracy over the first examples."""
        data = self._prepare(examples)
        loss, right = self.engine.measure(data, count, self.network.last_layer.eps)
        if self.network.weight_decay_lambda:
            self.engine.plan.unpack(self.network.params)
        return loss / count + self.network.decay(), right / count

    def publish(self) -> None:
        """Bring parameters and state into the arrays of the network and the optimizer.

        Once after each step: what a callback changed since is not overwritten.
        """
        if not self._ahead:
            return
        plan, params = self.engine.plan, self.network.params
        plan.unpack(params)
        for i, name in enumerate(self.optimizer._slots):
            plan.unpack_slot(i, {k: self.optimizer._state(name, k, p) for k, p in params.items()})
        self._ahead = False  # not before: Ctrl-C in between, and it is done again

    def take_up(self) -> None:
        """Go on from what the network and the optimizer hold now."""
        if not self.network.is_standard():
            raise RuntimeError(
                "fit: a callback changed the layers or the shapes of the parameters; it may change "
                "the parameters' values"
            )
        plan, params = self.engine.plan, self.network.params
        plan.pack(params)
        for i, name in enumerate(self.optimizer._slots):
            plan.pack_slot(i, {k: self.optimizer._state(name, k, p) for k, p in params.items()})


def steps_for(
    network: Network,
    optimizer: Optimizer,
    training: Examples,
    allow_nonfinite: bool,
    batch_size: int,
    threads: int | None,
) -> CompiledSteps | LayerSteps:
    """Return compiled steps, or those of the layers for what the compiled loop does not know."""
    if type(optimizer) in COMPILED_OPTIMIZERS and network.is_standard():
        return CompiledSteps(network, optimizer, training, allow_nonfinite, batch_size, threads)
    return LayerSteps(network, optimizer, training, allow_nonfinite)
