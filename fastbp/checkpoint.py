"""Networks in files: safetensors, which holds arrays and text and nothing that could run.

Needs the extra ``train``: ``pip install 'fastbp[train]'``.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import _sealed
from ._arrays import Array, as_float
from ._files import write_atomically
from .network import ACTIVATIONS, Network

__all__ = ["ModelError", "load_network", "save_network"]

FORMAT = "fastbp network, version 1"

# safetensors' names of the parameters' types.
DTYPES = {"F32": np.float32, "F64": np.float64}


class ModelError(ValueError):
    """A file that is no network of fastbp's; the message has the path and the reason."""


def save_network(
    path: str | PathLike[str], network: Network, notes: Mapping[str, Any] | None = None
) -> None:
    """Write a network's parameters, and what is needed to build it again, whole or not at all.

    A SHA-256 of the whole file stands in it.

    Parameters
    ----------
    path : path-like
        An existing file is replaced.
    network : Network
    notes : mapping, optional
        Anything JSON can hold, up to a million characters of it; kept beside the parameters.

    Raises
    ------
    ModuleNotFoundError
        Without safetensors.
    OSError
        As the operating system says.
    ValueError
        For notes that are too long.
    """
    write_atomically(Path(path), sealed_network(network, network.params, notes))


def sealed_network(
    network: Network, params: Mapping[str, Array], notes: Mapping[str, Any] | None = None
) -> bytes:
    """Return the content of a network's file, with these parameters in the place of its own."""
    about = {
        "sizes": network.sizes,
        "activation": network.activation,
        "weight_decay_lambda": network.weight_decay_lambda,
        "notes": dict(notes or {}),
    }
    arrays = {key: np.ascontiguousarray(p) for key, p in params.items()}
    return _sealed.seal(arrays, {"format": FORMAT, "network": json.dumps(about)})


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
    safetensors = _sealed.library()
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        _sealed.check_header(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            # What is written in the header decides whether anything else is read.
            about, dtype = _describe(file)
            metadata = file.metadata()
            if metadata.keys() - {"format", "network", "sha256"}:
                raise ValueError(f"its header has {sorted(metadata)}")
            if "sha256" in metadata:  # files of fastbp's first days have none
                _sealed.verify(path, metadata)
            params = {key: file.get_tensor(key) for key in _shapes(about["sizes"])}
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a fastbp network ({error})") from error
    network = Network(
        about["sizes"],
        [0.0] * (len(about["sizes"]) - 1),
        activation=about["activation"],
        weight_decay_lambda=about["weight_decay_lambda"],
        dtype=dtype,
        seed=0,
    )
    network.params.update(params)
    return network, about["notes"]


def _describe(file: Any) -> tuple[dict[str, Any], np.dtype[Any]]:
    """Return what the header says of the network, and the parameters' type; or raise ValueError."""
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r}, expected {FORMAT!r}")
    about = json.loads(_sealed.text_of(metadata, "network"))
    sizes, decay = about["sizes"], about["weight_decay_lambda"]
    if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"sizes are {sizes}")
    if type(decay) not in (int, float) or not 0 <= as_float(decay) < math.inf:
        raise ValueError(f"weight_decay_lambda is {decay!r}")
    if type(about["activation"]) is not str or about["activation"] not in ACTIVATIONS:
        raise ValueError(f"activation is {about['activation']!r}")
    if not isinstance(about["notes"], dict):
        raise ValueError("notes are no mapping")
    found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    if len(found) != 2 * (len(sizes) - 1) or found != _shapes(sizes):
        raise ValueError(f"parameters {found} do not fit the sizes {sizes}")
    types = {file.get_slice(key).get_dtype() for key in found}
    if len(types) != 1 or not types <= DTYPES.keys():
        raise ValueError(f"parameters have types {sorted(types)}")
    return about, np.dtype(DTYPES[types.pop()])


def _shapes(sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (D, H) in enumerate(itertools.pairwise(sizes), start=1):
        shapes[f"W{i}"], shapes[f"b{i}"] = (D, H), (H,)
    return shapes
