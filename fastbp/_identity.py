"""Which training it is: what a checkpoint and the training that goes on from it have in common."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .examples import SparseRows
from .report import Meter
from .steps import CompiledSteps, Examples, LayerSteps

__all__ = ["differences", "identity"]

# Bytes of the data that are digested at a time.
PIECE = 1 << 24


def identity(steps: CompiledSteps | LayerSteps, meter: Meter) -> dict[str, Any]:
    """Return what a training must have in common with a checkpoint, as JSON has it."""
    network, optimizer = steps.network, steps.optimizer
    compiled = isinstance(steps, CompiledSteps)
    return {
        "network": f"{'-'.join(map(str, network.sizes))}, {network.activation}",
        "dtype": str(network.dtype),
        "weight decay": network.weight_decay_lambda,
        "parameters": {key: list(p.shape) for key, p in network.params.items()},
        "steps": "compiled" if compiled else f"layer by layer, {_name(network)}",
        "loss": [_name(network.last_layer), getattr(network.last_layer, "eps", None)],
        "optimizer": [_name(optimizer), _numbers(vars(optimizer))],
        **{name: meter.history.settings[name] for name in ("batch_size", "sampling", "seed")},
        "data": _fingerprint(meter.training),
        "validation data": None if meter.validation is None else _fingerprint(meter.validation),
        "evaluate_sample": meter.sample,
        "allow_nonfinite": meter.allow_nonfinite,
    }


def _name(thing: object) -> str:
    return type(thing).__qualname__


def _numbers(attributes: dict[str, Any]) -> dict[str, float]:
    """Return an optimizer's settings: its numbers that are no counts."""
    return {k: float(v) for k, v in attributes.items() if isinstance(v, (float, np.floating))}


def differences(given: dict[str, Any], kept: dict[str, Any], optimizer: dict[str, Any]) -> str:
    """Return how a checkpoint's training differs from the one given, or nothing."""
    # A callback may have changed the learning rate since; the optimizer of then is as good as a
    # new one with the settings of the start.
    name, numbers = given["optimizer"]
    if kept["optimizer"][0] == name and _numbers(optimizer) == numbers:
        given = given | {"optimizer": kept["optimizer"]}
    found = [
        f"{key} was {kept.get(key)}, is {given.get(key)}"
        for key in given | kept
        if kept.get(key) != given.get(key)
    ]
    return "; ".join(found)


def _fingerprint(examples: Examples) -> str:
    """Return shape, type and digest of inputs and targets."""
    x, t = examples
    inputs = [x.starts, x.columns, x.values] if isinstance(x, SparseRows) else [x]
    digest = hashlib.sha256()
    for array in (*inputs, t):
        rows = max(1, PIECE // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            piece = np.ascontiguousarray(array[start : start + rows])
            digest.update(piece.reshape(-1).view(np.uint8).data)
    kind = "sparse " if isinstance(x, SparseRows) else ""
    types = ", ".join(f"{array.dtype.str} {array.shape}" for array in (*inputs, t))
    return f"{kind}{types}, SHA-256 {digest.hexdigest()}"
