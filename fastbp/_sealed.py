"""Safetensors files that notice damage: a SHA-256 over header and payload stands inside.

Needs the extra ``train``: ``pip install 'fastbp[train]'``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# While the digest is computed, zeros stand in its place.
UNSEALED = "0" * 64
# How the header has it.  Inside a text of the header a quotation mark would have a backslash.
MARK = b'"sha256":"'

# Bytes of a file that are read at a time.
PIECE = 1 << 20


def library() -> Any:
    """Return the safetensors library, or say how to get it."""
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "parameter files need safetensors: pip install 'fastbp[train]'", name=error.name
        ) from error
    return safetensors


def seal(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file with these arrays, these texts, and the digest of it all.

    Parameters
    ----------
    arrays : mapping of C-contiguous arrays
    metadata : mapping of str
    """
    content = bytearray(library().numpy.save(arrays, {**metadata, "sha256": UNSEALED}))
    place = _place(content)
    content[place] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def verify(path: Path, metadata: Mapping[str, str]) -> None:
    """Compare a file with the digest that its header has.

    Parameters
    ----------
    path : pathlib.Path
        A file that the library could open, so its header fits into it.
    metadata : mapping of str
        Of its header.

    Raises
    ------
    OSError
        As the operating system says.
    ValueError
        When there is no digest, or another one.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        start = file.read(8)
        header = bytearray(start + file.read(int.from_bytes(start, "little")))
        header[_place(header)] = UNSEALED.encode()
        digest.update(header)
        while piece := file.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() != metadata["sha256"]:
        raise ValueError("it is damaged: its SHA-256 is not the one it was written with")


def _place(content: bytearray) -> slice:
    """Return where the header has the digest."""
    end = 8 + int.from_bytes(content[:8], "little")
    if content.count(MARK, 0, end) != 1:
        raise ValueError("its header has no SHA-256")
    start = content.find(MARK, 0, end) + len(MARK)
    return slice(start, start + len(UNSEALED))
