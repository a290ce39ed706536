"""Nested dicts of numbers, texts and arrays, taken apart for a file and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import Array

__all__ = ["pack", "unpack"]

# safetensors' names of the types that are read; NumPy has no others of them.
TYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}

PLAIN = (bool, int, float, str, type(None))


def pack(value: Any, arrays: dict[str, Array], name: str = "") -> Any:
    """Return a value as JSON has it, with the names of its arrays in their places.

    Parameters
    ----------
    value : dict with str keys, array, number, str or None
    arrays : dict
        Gets the arrays.
    name : str
        Of the value, for the names of its arrays.

    Raises
    ------
    TypeError
        For anything else.
    """
    if type(value) in PLAIN:
        return value
    # A wider float than float64 is none of safetensors' types.
    is_array = isinstance(value, (np.ndarray, np.generic))
    if is_array and value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
        key = f"{name}#{len(arrays)}"
        # A scalar of NumPy's is not a Python number: float32 computes otherwise.
        arrays[key] = np.array(value, value.dtype.newbyteorder("="), order="C", ndmin=1)
        return {"array" if isinstance(value, np.ndarray) and value.ndim else "scalar": key}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        parts = {key: pack(part, arrays, f"{name}.{key}".strip(".")) for key, part in value.items()}
        return {"parts": parts}
    raise TypeError(
        f"fit: a checkpoint cannot hold {name}, of type {type(value).__name__}; it holds numbers, "
        "texts, arrays, and dicts of them"
    )


def unpack(packed: Any, file: Any) -> Any:
    """Put a value together again.

    Parameters
    ----------
    packed
        What ``pack`` returned.
    file
        An open file of safetensors with the arrays.  Each is read once: a few bytes of text
        cannot ask for it a thousand times.

    Raises
    ------
    AttributeError, LookupError, RecursionError, TypeError, ValueError
        When ``pack`` returns no such thing.
    """
    return _unpack(packed, file, set(file.keys()))


def _unpack(packed: Any, file: Any, unread: set[str]) -> Any:
    if type(packed) in PLAIN:
        return packed
    ((kind, content),) = packed.items()
    if kind == "parts":
        return {key: _unpack(part, file, unread) for key, part in content.items()}
    unread.remove(content)
    if kind not in ("array", "scalar") or file.get_slice(content).get_dtype() not in TYPES:
        raise ValueError(f"it has an array of an unknown type, {content!r}")
    array = file.get_tensor(content)
    return array if kind == "array" else array[0]
