"""Central differences of a network's loss in every parameter, compiled."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ._arrays import Array
from .gradient import H as STEP
from .gradient import warn_of_float32
from .kernels.numerical import (
    IDENTITY,
    PADDING,
    RELU,
    SIGMOID,
    UNITS,
    central_differences,
)
from .layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

ACTIVATIONS: dict[type, int] = {Relu: RELU, Sigmoid: SIGMOID}

# Nanoseconds a call of the kernel is planned to take, so that Ctrl-C gets its turn.  It takes half
# with small changes of logits, and up to twice as long with eps; with zeros among the inputs less.
CALL = 10e6
# Nanoseconds: an exponential or an activation with what stands around it, and a product.
ELEMENT, PRODUCT = 1.5, 0.15


def network_differences(network: Any, x: Any, t: Any) -> dict[str, Array] | None:
    """Gradients of ``network.loss(x, t)`` by central differences, or None.

    None for whatever the kernel does not know: layers that are not fastbp's own, or not in the
    order they were built in; parameters that are not plain arrays of one type or share memory; and
    numbers that are not finite.

    Parameters
    ----------
    network : Network
        Whose ``loss`` and ``predict`` are those of its class.
    x, t : array_like
        As ``network.loss`` takes them; it is called once.

    Returns
    -------
    dict of arrays, or None
        Keys, shapes and type of ``network.params``, new.

    Raises
    ------
    IndexError, TypeError, ValueError
        As ``network.loss``.
    """
    layers = list(network.layers.values())
    if not _is_known(layers, network.last_layer):
        return None
    loss = network.loss(x, t)
    affines: list[Affine] = layers[::2]
    if not _are_plain(network.params, affines):
        return None
    activation = ACTIVATIONS[type(layers[1])] if len(layers) > 1 else IDENTITY
    inputs = [affine.x for affine in affines if affine.x is not None]
    sums = [affine.forward(rows) for affine, rows in zip(affines, inputs, strict=True)]
    if not np.isfinite(loss) or not all(np.isfinite(a).all() for a in (*inputs, *sums)):
        return None
    dtype = affines[0].W.dtype
    if dtype == np.float32:
        warn_of_float32("params", stacklevel=4)
    N, C = sums[-1].shape
    targets = network.last_layer.t
    if targets.ndim == 1:
        targets = np.eye(C, dtype=dtype)[targets]
    grads: dict[str, Array] = {}
    tables = _Tables(affines, activation, float(network.last_layer.eps))
    rows = max(1, int(CALL / max(tables.cost)))
    for start in range(0, N, rows):
        piece = slice(start, start + rows)
        some = tables.differences(
            [a[piece] for a in inputs], [a[piece] for a in sums], targets[piece]
        )
        grads = {key: grads[key] + g for key, g in some.items()} if grads else some
    decay = network.weight_decay_lambda
    for key, grad in grads.items():
        grad /= N
        if decay and key.startswith("W"):
            W = network.params[key]
            grad += decay * ((W + STEP) ** 2 - (W - STEP) ** 2) / (4 * STEP)
    return grads


def _is_known(layers: list[Any], last_layer: Any) -> bool:
    """Whether these are Affine, activation, Affine, ... and the loss, as the package has them."""
    kinds = [type(layer) for layer in layers]
    hidden = kinds[1::2]
    return (
        len(kinds) % 2 == 1
        and all(kind is Affine for kind in kinds[::2])
        and all(kind in ACTIVATIONS and kind is hidden[0] for kind in hidden)
        and type(last_layer) is SoftmaxWithLoss
        and not any("forward" in vars(layer) for layer in (*layers, last_layer))
    )


def _are_plain(params: dict[str, Array], affines: list[Affine]) -> bool:
    """Whether the parameters are the layers' own arrays, all of one type, each with its memory."""
    own = {}
    for i, affine in enumerate(affines, start=1):
        own[f"W{i}"], own[f"b{i}"] = affine.W, affine.b
    arrays = list(params.values())
    return (
        params.keys() == own.keys()
        and all(p is own[key] and p.dtype == arrays[0].dtype for key, p in params.items())
        and not any(np.may_share_memory(a, b) for a, b in itertools.combinations(arrays, 2))
    )


class _Tables:
    """What the kernel needs to know of a network, whatever the examples; and its workspaces."""

    def __init__(self, affines: list[Affine], activation: int, eps: float) -> None:
        self.shapes = [affine.W.shape for affine in affines]
        self.activation, self.eps = activation, eps
        dtype = affines[0].W.dtype
        widths = [-(-H // PADDING) * PADDING for _, H in self.shapes]
        # From each layer to the next, transposed; from the last one to the logits.
        blocks = [
            _padded(affine.W.T, rows, columns)
            for affine, rows, columns in zip(affines[1:], widths[1:], widths, strict=False)
        ]
        blocks.append(np.eye(self.shapes[-1][1], widths[-1], dtype=dtype))
        self.weights = np.concatenate([block.ravel() for block in blocks])
        self.places = np.cumsum([0, *widths])
        begins = np.cumsum([0, *(block.size for block in blocks[:-1])])
        self.table = np.stack([widths, self.places[:-1], begins], axis=1).astype(np.int64)
        self.total = np.empty(UNITS)
        self.columns = np.empty((3, 2 * UNITS), dtype)
        self.moved = np.empty((2, max(widths) * 2 * UNITS), dtype)
        # Nanoseconds for one input of each layer and one example.
        later = [*(widths[m + 1 :] for m in range(len(widths) - 1)), [widths[-1]]]
        self.cost = [
            2 * width * (ELEMENT * sum(after) + PRODUCT * float(np.dot(after[1:], after[:-1])))
            for width, after in zip(widths, later, strict=True)
        ]

    def differences(
        self, inputs: list[Array], sums: list[Array], targets: Array
    ) -> dict[str, Array]:
        """Return the gradients of the sum of the examples' losses.

        Parameters
        ----------
        inputs : list of (N, D) arrays
            Of each affine layer.
        sums : list of (N, H) arrays
            Its results.
        targets : (N, C) array
        """
        N, dtype = len(targets), targets.dtype
        before, after = np.zeros((2, N, self.places[-1]), dtype)
        for m, (rows, (_, H)) in enumerate(zip(sums, self.shapes, strict=True)):
            here = slice(self.places[m], self.places[m] + H)
            before[:, here] = rows
            if m + 1 < len(sums):
                after[:, here] = inputs[m + 1]
        logits = before[:, here]
        logits -= logits.max(axis=1, keepdims=True)  # which keeps their last digits small
        p = np.exp(logits)
        after[:, here] = p / p.sum(axis=1, keepdims=True)
        grads = {}
        for m, (D, H) in enumerate(self.shapes):
            x = np.ones((D + 1, N), dtype)
            x[:D] = inputs[m].T
            grad = np.empty((D + 1, self.table[m, 0]), dtype)
            block = max(1, int(CALL / (N * self.cost[m])))
            for start in range(0, D + 1, block):
                central_differences(
                    grad[start : start + block],
                    self.total,
                    self.columns,
                    self.moved,
                    x[start : start + block],
                    before,
                    after,
                    self.weights,
                    targets,
                    self.table,
                    m,
                    self.activation,
                    dtype.type(STEP),
                    self.eps,
                )
            grads[f"W{m + 1}"], grads[f"b{m + 1}"] = grad[:D, :H].copy(), grad[D, :H].copy()
        return grads


def _padded(block: Array, rows: int, columns: int) -> Array:
    return np.pad(block, ((0, rows - block.shape[0]), (0, columns - block.shape[1])))
