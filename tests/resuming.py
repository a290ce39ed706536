"""Small trainings for the tests of checkpoints, and all their bits."""

import json

import numpy as np
import safetensors
from scipy import sparse

import fastbp
from fastbp import Checkpoints

D, C, N = 6, 3, 33
# 4 steps an epoch, the last with 3 examples.
BATCH, TOTAL = 10, 42

OPTIMIZERS = {
    "SGD": 0.5, "Momentum": 0.1, "Nesterov": 0.1, "AdaGrad": 0.1, "RMSprop": 0.01, "Adam": 0.01,
}  # fmt: skip


def optimizer_of(name):
    return getattr(fastbp, name)(lr=OPTIMIZERS[name])


def examples(kind="float64", count=N):
    """Return inputs of a kind, and labels that can be learned."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, D))
    t = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.3)
    if kind == "bytes":
        return np.clip(x + 3, 0, 255).astype(np.uint8), t
    if kind in ("zeros", "sparse"):
        x *= rng.random(x.shape) < 0.3
    if kind == "sparse":
        return sparse.csr_matrix(x), t
    return x.astype(np.float32 if kind == "float32" else np.float64), t


class Layered(fastbp.MultiLayerNet):
    """A network with a method of its own: trained layer by layer."""

    def decay(self):
        return super().decay()


def build(
    cls=fastbp.MultiLayerNet, dtype=np.float64, hidden=(5,), activation="relu", decay=0.125, seed=0
):
    return cls(D, list(hidden), C, activation, 0.5, decay, dtype=dtype, seed=seed)


def train(
    total, *, net=None, given=None, optimizer="Momentum", inputs="float64", count=N,
    cls=fastbp.MultiLayerNet, dtype=np.float64, disturb=False, validation=True,
    batch_size=BATCH, sampling="shuffle", seed=7, **options,
):  # fmt: skip
    """Train for so many steps in all; return network, optimizer and history.

    ``disturb`` begins with other weights, and with the book's generator elsewhere: what must not
    matter when a training goes on.
    """
    x, t = examples(inputs, count)
    if net is None:
        net = build(cls, dtype, seed=1 if disturb else 0)
    np.random.seed(99 if disturb else 5)
    given = optimizer_of(optimizer) if given is None else given
    history = fastbp.fit(
        net, x, t, optimizer=given, iterations=total, batch_size=batch_size, sampling=sampling,
        seed=seed, validation_data=(x[:9], t[:9]) if validation else None, **options,
    )  # fmt: skip
    return net, given, history


# What differs from one run to the next.
CLOCK = ("times", "examples_per_second")


def everything(result, folder=None):
    """Return all that must be the same: parameters, state, losses, log, random state."""
    net, optimizer, history = result
    bits = {key: (p.dtype.str, p.shape, p.tobytes()) for key, p in net.params.items()}
    if optimizer is not None:
        for name, value in vars(optimizer).items():
            slot = isinstance(value, dict)
            bits[f"optimizer {name}"] = (
                {k: (a.dtype.str, a.tobytes()) for k, a in value.items()} if slot else value
            )
    if history is not None:
        lists = {k: v for k, v in history.to_dict().items() if k not in CLOCK}
        bits |= {"history": repr(lists), "lengths": [len(getattr(history, k)) for k in CLOCK]}
    if folder is not None:
        bits["checkpoint"] = contents(Checkpoints(folder).files()[-1][1])
    return bits


def contents(path):
    """Return all of a checkpoint but what the clock gave."""
    with safetensors.safe_open(path, framework="numpy") as file:
        training = json.loads(file.metadata()["training"])
        arrays = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
    parts = training["state"]["parts"]
    for name in ("seconds", "elapsed", "best"):  # a last report within an epoch may be the best
        del parts[name]
    for name in CLOCK:
        del arrays[parts["history"]["parts"][name]["array"]]
    return path.name, json.dumps(training, sort_keys=True), arrays


def names(folder):
    """Return the names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def steps_in(folder):
    """Return the steps of the checkpoints in a folder."""
    return [step for step, _ in Checkpoints(folder).files()]
