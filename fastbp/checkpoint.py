"""Networks in files: safetensors, which holds arrays and text and nothing that could run.

Needs the extra ``train``: ``pip install 'fastbp[train]'``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ._files import write_atomically
from .network import ACTIVATIONS, Network

__all__ = ["ModelError", "load_network", "save_network"]

FORMAT = "fastbp network, version 1"


class ModelError(ValueError):
    """A file that is no network of fastbp's; the message has the path and the reason."""


def _library() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "parameter files need safetensors: pip install 'fastbp[train]'", name=error.name
        ) from error
    return safetensors


def save_network(
    path: str | PathLike[str], network: Network, notes: Mapping[str, Any] | None = None
) -> None:
    """Write a network's parameters, and what is needed to build it again, whole or not at all.

    Parameters
    ----------
    path : path-like
        An existing file is replaced.
    network : Network
    notes : mapping, optional
        Anything JSON can hold, kept beside the parameters.

    Raises
    ------
    ModuleNotFoundError
        Without safetensors.
    OSError
        As the operating system says.
    """
    about = {
        "sizes": network.sizes,
        "activation": network.activation,
        "weight_decay_lambda": network.weight_decay_lambda,
        "notes": dict(notes or {}),
    }
    arrays = {key: np.ascontiguousarray(p) for key, p in network.params.items()}
    metadata = {"format": FORMAT, "network": json.dumps(about)}
    write_atomically(Path(path), _library().numpy.save(arrays, metadata))


def load_network(path: str | PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Read a network that :func:`save_network` wrote.

    Parameters
    ----------
    path : path-like
        The file, or a folder with ``model.safetensors`` in it.

    Returns
    -------
    network : Network
    notes : dict

    Raises
    ------
    ModelError
        When the file is missing, damaged, or something else.
    ModuleNotFoundError
        Without safetensors.
    """
    safetensors = _library()
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            params = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path}: not a fastbp network (format {metadata.get('format')!r})")
    try:
        about = json.loads(metadata["network"])
        network = _build(about, params)
        notes = dict(about["notes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: damaged ({error})") from error
    return network, notes


def _build(about: Mapping[str, Any], params: Mapping[str, Any]) -> Network:
    """Build the network that fits these parameters exactly, or raise ValueError."""
    sizes = [int(size) for size in about["sizes"]]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (D, H) in enumerate(itertools.pairwise(sizes), start=1):
        shapes[f"W{i}"], shapes[f"b{i}"] = (D, H), (H,)
    found = {key: p.shape for key, p in params.items()}
    if not shapes or found != shapes:
        raise ValueError(f"parameters {found} do not fit the sizes {sizes}")
    dtypes = {p.dtype for p in params.values()}
    if len(dtypes) != 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise ValueError(f"parameters have types {sorted(map(str, dtypes))}")
    if about["activation"] not in ACTIVATIONS:
        raise ValueError(f"unknown activation {about['activation']!r}")
    network = Network(
        sizes,
        [0.0] * (len(sizes) - 1),
        activation=about["activation"],
        weight_decay_lambda=about["weight_decay_lambda"],
        dtype=dtypes.pop(),
        seed=0,
    )
    network.params.update(params)
    return network
