"""Networks and examples with which tests compare the compiled loop and the layers."""

import numpy as np

from fastbp import MultiLayerNet


class ByLayers(MultiLayerNet):
    """A network with a method of its own, for which the compiled loop does not stand in."""

    def loss(self, x, t):
        return super().loss(x, t)


def examples(D, C, kind="dense", N=250):
    """Return inputs and targets of one kind."""
    rng = np.random.default_rng(D + C)
    x, t = rng.normal(size=(N, D)), rng.integers(0, C, N)
    if kind in ("sparse", "bytes"):  # as pictures: most are 0, some columns always
        x = np.abs(x) * (rng.random(x.shape) < 0.2)
        x[:, : D // 4] = 0
    if kind == "bytes":
        x = (40 * x).astype(np.uint8)
    if kind == "one-hot":
        t = np.eye(C)[t]
    if kind == "soft":
        t = rng.dirichlet(np.ones(C), N)
    if kind == "Fortran":
        x = np.asfortranarray(x)
    return x, t


def build(sizes, activation="relu", decay=0.0, dtype=np.float64, cls=MultiLayerNet):
    D, *hidden, C = sizes
    return cls(D, hidden, C, activation, activation, decay, dtype=dtype, seed=1)


def bits(net):
    return {key: p.tobytes() for key, p in net.params.items()}
