"""What trains networks and asks them things, all with the same few methods.

fastbp draws its batches itself, as ``fit`` does; the others are given row numbers drawn beforehand,
arrays or tensors of their own kind prepared beforehand, and gather the rows of each batch.
scikit-learn, which takes no row numbers, is given the rows of all batches one after the other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

import fastbp
from fastbp import reference

from .workloads import (
    EPS,
    MAX_BATCHES,
    MOMENTUM,
    SEED,
    Array,
    Workload,
    batches,
    load,
    loss,
    weights,
)

Pairs = list[tuple[Array, Array]]

# A whole training measures its accuracies every so many steps: an epoch of the book.
MEASURE_EVERY = 600

# The book's names of the optimizers.
RULES = {"sgd": "SGD", "momentum": "Momentum", "adam": "Adam"}


class Peer:
    """What the implementations have in common.

    Parameters
    ----------
    workload : Workload
    threads : int
    """

    # Whether steps come in whole groups, because another length is compiled anew.
    whole_groups = False

    def __init__(self, workload: Workload, threads: int) -> None:
        self.workload = workload
        self.threads = threads
        (self.x, self.t), (self.x_test, self.t_test) = load(workload)
        self.group = batches(workload, min(workload.per_epoch, MAX_BATCHES))
        self.drawn = self.group[:0]
        self.prepare()
        self.reset()

    def prepare(self) -> None:
        """Build what does not change: data of its own kind, compiled functions."""

    def reset(self) -> None:
        """Go back to the initial weights."""
        raise NotImplementedError

    def train(self, rows: Array) -> None:
        """Take a step with each of the batches, (steps, batch) row numbers."""
        raise NotImplementedError

    def parameters(self) -> Pairs:
        """Return the weights and biases as NumPy arrays."""
        raise NotImplementedError

    def logits(self, x: Any) -> Array:
        """Return the network's outputs, for accuracies."""
        raise NotImplementedError

    def step(self) -> None:
        """Take a step with all rows, gradient and update called one after the other."""
        raise NotImplementedError

    def gradient(self) -> Pairs:
        """Return the gradients of all weights and biases, of all rows."""
        raise NotImplementedError

    def predict(self) -> Array:
        """Return the outputs of all rows."""
        return self.logits(self.x)

    def take(self, steps: int) -> Pairs:
        """Take so many steps from the initial weights; return the parameters."""
        if len(self.drawn) != steps:
            self.drawn = batches(self.workload, steps)
        self.reset()
        self.train(self.drawn)
        return self.parameters()

    def reach(self, accuracy: float, epochs: int) -> bool:
        """Train from the initial weights until so many of the others are right; tell whether."""
        self.reset()
        rows = batches(self.workload, epochs * self.workload.per_epoch)
        for batch in np.array_split(rows, epochs):
            self.train(batch)
            if self.accuracy() >= accuracy:
                return True
        return False

    def accuracy(self) -> float:
        """Return the accuracy on the data that are not trained on."""
        logits = np.asarray(self.logits(self.x_test))
        return float(np.mean(logits.argmax(axis=1) == np.asarray(self.t_test)))

    def check(self, steps: int) -> tuple[float, float]:
        """Take the same steps as everybody; return the loss before and after."""
        self.reset()
        before = self.loss()
        self.train(batches(self.workload, steps))
        return before, self.loss()

    def run(self, steps: int) -> tuple[float, int]:
        """Train from the initial weights; return the seconds and the steps really taken."""
        self.reset()
        done = 0
        begin = time.perf_counter()
        while done < steps:
            rows = self.group if self.whole_groups else self.group[: steps - done]
            self.train(rows)
            done += len(rows)
        return time.perf_counter() - begin, done

    def whole(self) -> tuple[float, float]:
        """Train to the end, with accuracies on the way; return the seconds and the last one."""
        steps = self.workload.whole
        rows = batches(self.workload, steps)
        self.reset()
        begin = time.perf_counter()
        for start in range(0, steps, MEASURE_EVERY):
            self.accuracies()
            self.train(rows[start : start + MEASURE_EVERY])
        accuracy = self.accuracies()
        return time.perf_counter() - begin, accuracy

    def accuracies(self) -> float:
        """Compute the accuracy on the data trained on, and return that on the others."""
        right = 0.0
        for x, t in ((self.x, self.t), (self.x_test, self.t_test)):
            right = float(np.mean(np.asarray(self.logits(x)).argmax(axis=1) == np.asarray(t)))
        return right

    def loss(self) -> float:
        """Return the loss over the first examples."""
        return loss(self.parameters(), np.asarray(self.x), np.asarray(self.t))


class Fastbp(Peer):
    """fastbp, through ``fit`` as its users call it."""

    def prepare(self) -> None:
        """Set the number of threads."""
        fastbp.set_num_threads(self.threads)

    def reset(self) -> None:
        """Build network and optimizer."""
        work = self.workload
        inputs, *hidden, classes = work.sizes
        self.network = fastbp.MultiLayerNet(
            inputs, hidden, classes, weight_decay_lambda=work.decay, dtype=work.dtype, seed=SEED
        )
        for i, (W, b) in enumerate(weights(work), start=1):
            self.network.params[f"W{i}"][...] = W
            self.network.params[f"b{i}"][...] = b
        self.optimizer = getattr(fastbp, RULES[work.optimizer])(lr=work.lr)

    def fit(self, steps: int, **options: Any) -> Any:
        """Call ``fit``."""
        return fastbp.fit(
            self.network,
            self.x,
            self.t,
            optimizer=self.optimizer,
            batch_size=self.workload.batch,
            iterations=steps,
            sampling="choice",
            progress=False,
            **options,
        )

    def step(self) -> None:
        """Call ``gradient`` and ``update``, as a loop of the user's own does."""
        self.optimizer.update(self.network.params, self.network.gradient(self.x, self.t))

    def gradient(self) -> Pairs:
        """Call ``gradient``."""
        return self._pairs(self.network.gradient(self.x, self.t))

    def numerical_gradient(self) -> Pairs:
        """Call ``numerical_gradient``."""
        return self._pairs(self.network.numerical_gradient(self.x, self.t))

    def logits(self, x: Any) -> Array:
        """Call ``predict``."""
        return self.network.predict(x)

    def take(self, steps: int) -> Pairs:
        """Call ``fit``, which without a seed draws its batches as the book does."""
        self.reset()
        np.random.seed(SEED)  # noqa: NPY002
        self.fit(steps, evaluate_sample=1)
        return self.parameters()

    def reach(self, accuracy: float, epochs: int) -> bool:
        """Call ``fit`` once, with a callback that ends it."""
        self.reset()
        np.random.seed(SEED)  # noqa: NPY002
        history = self.fit(
            epochs * self.workload.per_epoch,
            validation_data=(self.x_test, self.t_test),
            callbacks=[lambda report: report.test_acc >= accuracy],
        )
        return bool(history.test_acc_list[-1] >= accuracy)

    def check(self, steps: int) -> tuple[float, float]:
        """Take the same steps as everybody: ``fit`` without a seed draws as the book does."""
        self.reset()
        before = self.loss()
        np.random.seed(SEED)  # noqa: NPY002
        self.fit(steps, evaluate_sample=1)
        return before, self.loss()

    def run(self, steps: int) -> tuple[float, int]:
        """Time the steps that follow a first epoch, to the last report, by a clock out here.

        A report is made after every epoch, on a single example, and its time is counted.
        """
        self.reset()
        stamps: list[float] = []
        self.fit(
            self.workload.per_epoch + steps,
            seed=SEED,
            evaluate_sample=1,
            callbacks=[lambda report: stamps.append(time.perf_counter())],
        )
        return stamps[-1] - stamps[1], steps

    def whole(self) -> tuple[float, float]:
        """Time one call of ``fit``, everything included."""
        validation = (self.x_test, self.t_test)
        begin = time.perf_counter()
        history = self.fit(self.workload.whole, seed=SEED, validation_data=validation)
        return time.perf_counter() - begin, history.test_acc_list[-1]

    def parameters(self) -> Pairs:
        """Return the network's arrays."""
        return self._pairs(self.network.params)

    def _pairs(self, arrays: Mapping[str, Array]) -> Pairs:
        return [(arrays[f"W{i}"], arrays[f"b{i}"]) for i in range(1, len(self.workload.sizes))]


class Book(Peer):
    """NumPy as the book writes it: the gradient, the update, and then the loss a second time.

    Its parameters are float64, whatever the workload says, and its targets one-hot rows.
    """

    @property
    def dtype(self) -> Any:
        """The parameters' type."""
        return np.float64

    def prepare(self) -> None:
        """Make the targets one-hot rows."""
        self.one_hot = np.eye(self.workload.sizes[-1], dtype=self.x.dtype)[self.t]

    def reset(self) -> None:
        """Build layers and optimizer."""
        self.params: dict[str, Array] = {}
        self.layers: list[Any] = []
        for i, (W, b) in enumerate(weights(self.workload), start=1):
            self.params[f"W{i}"], self.params[f"b{i}"] = W.astype(self.dtype), b.astype(self.dtype)
            self.layers += [reference.Relu()] if i > 1 else []
            self.layers += [reference.Affine(self.params[f"W{i}"], self.params[f"b{i}"])]
        self.last_layer = reference.SoftmaxWithLoss()
        rule = RULES[self.workload.optimizer]
        self.optimizer = getattr(reference, rule)(lr=self.workload.lr)
        self.losses: list[float] = []

    def train(self, rows: Array) -> None:
        """Run the loop of ``train_neuralnet.py``."""
        for batch in rows:
            x, t = self.x[batch], self.one_hot[batch]
            self.optimizer.update(self.params, self.batch_gradient(x, t))
            self.losses.append(self.batch_loss(x, t))

    def batch_loss(self, x: Array, t: Array) -> float:
        """Return the loss of a batch, with the weight decay."""
        data_loss = self.last_layer.forward(self.logits(x), t)
        if not self.workload.decay:
            return data_loss
        squares = sum(np.sum(layer.W**2) for layer in self.layers[::2])
        return data_loss + 0.5 * self.workload.decay * squares

    def batch_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradients of a batch, by the book's names."""
        self.batch_loss(x, t)
        dout = self.last_layer.backward(1)
        for layer in reversed(self.layers[1:]):
            dout = layer.backward(dout)
        self.first_backward(dout)
        grads = {}
        for i, layer in enumerate(self.layers[::2], start=1):
            decay = self.workload.decay
            grads[f"W{i}"] = layer.dW + decay * layer.W if decay else layer.dW
            grads[f"b{i}"] = layer.db
        return grads

    def first_backward(self, dout: Array) -> None:
        """Go back through the first layer, to the gradient of the images that nobody uses."""
        self.layers[0].backward(dout)

    def logits(self, x: Array) -> Array:
        """Go forward through the layers."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def parameters(self) -> Pairs:
        """Return the arrays."""
        return [(layer.W, layer.b) for layer in self.layers[::2]]


class Reference(Book):
    """The same mathematics with nothing to spare.

    The workload's type, labels, no second loss, no gradient of the images.
    """

    @property
    def dtype(self) -> Any:
        """The parameters' type."""
        return self.workload.dtype

    def prepare(self) -> None:
        """Build nothing."""

    def train(self, rows: Array) -> None:
        """Take the steps."""
        for batch in rows:
            self.optimizer.update(self.params, self.batch_gradient(self.x[batch], self.t[batch]))

    def step(self) -> None:
        """Take a step."""
        self.optimizer.update(self.params, self.batch_gradient(self.x, self.t))

    def first_backward(self, dout: Array) -> None:
        """Leave the gradients of the first layer's parameters, and no others."""
        first = self.layers[0]
        first.dW, first.db = np.dot(first.x.T, dout), np.sum(dout, axis=0)

    def gradient(self) -> Pairs:
        """Go forward and backward."""
        grads = self.batch_gradient(self.x, self.t)
        return [(grads[f"W{i}"], grads[f"b{i}"]) for i in range(1, len(self.workload.sizes))]

    def numerical_gradient(self) -> Pairs:
        """Move every parameter up and down, as the book does."""

        def f(_: Array) -> float:
            return float(self.batch_loss(self.x, self.t))

        return [
            (reference.numerical_gradient(f, layer.W), reference.numerical_gradient(f, layer.b))
            for layer in self.layers[::2]
        ]


class Sklearn(Peer):
    """scikit-learn's MLPClassifier: its own ``fit``, which checks, and shuffles where it may."""

    def reset(self) -> None:
        """Build the classifier; its first partial fit makes the arrays that are then filled."""
        from sklearn.neural_network import MLPClassifier

        work = self.workload
        self.model = MLPClassifier(
            work.sizes[1:-1],
            solver="adam" if work.optimizer == "adam" else "sgd",
            alpha=work.decay * work.batch,  # it divides by the batch's size
            batch_size=work.batch,
            learning_rate_init=work.lr,
            momentum=MOMENTUM if work.optimizer == "momentum" else 0.0,
            nesterovs_momentum=False,
            epsilon=EPS,
            tol=0.0,
            n_iter_no_change=10**9,
            random_state=SEED,
        )
        first, classes = slice(work.batch), np.arange(work.sizes[-1])
        self.model.partial_fit(self.x[first], self.t[first], classes=classes)
        self.model.set_params(warm_start=True)
        for i, (W, b) in enumerate(weights(work)):
            self.model.coefs_[i][...], self.model.intercepts_[i][...] = W, b

    def fit(self, x: Array, t: Array, epochs: int, shuffle: bool) -> None:
        """Call ``fit``, which warns that it did not converge."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.set_params(max_iter=epochs, shuffle=shuffle).fit(x, t)

    def take(self, steps: int) -> Pairs:
        """Take so many steps; their rows are laid out in the order of the batches beforehand."""
        if len(self.drawn) != steps:
            self.drawn = batches(self.workload, steps)
            self.laid = self.lay(self.drawn)
        self.reset()
        self.fit(*self.laid, 1, shuffle=False)
        return self.parameters()

    def lay(self, rows: Array) -> tuple[Array, Array]:
        """Return the examples in the order of the batches."""
        flat = rows.reshape(-1)
        return self.x[flat], self.t[flat]

    def train(self, rows: Array) -> None:
        """Fit rows in the order of the batches."""
        self.fit(*self.lay(rows), 1, shuffle=False)

    def step(self) -> None:
        """Call ``partial_fit``."""
        self.model.partial_fit(self.x, self.t)

    def logits(self, x: Any) -> Array:
        """Call ``predict_proba`` with the softmax taken off."""
        self.model.out_activation_ = "identity"
        try:
            return self.model.predict_proba(x)
        finally:
            self.model.out_activation_ = "softmax"

    def run(self, steps: int) -> tuple[float, int]:
        """Time whole epochs."""
        self.reset()
        epochs = -(-steps // self.workload.per_epoch)
        begin = time.perf_counter()
        self.fit(self.x, self.t, epochs, shuffle=True)
        return time.perf_counter() - begin, epochs * self.workload.per_epoch

    def parameters(self) -> Pairs:
        """Return the arrays."""
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))
