"""Safetensors files that notice damage: a SHA-256 over header and payload stands inside.

Needs the extra ``train``: ``pip install 'fastbp[train]'``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._files import open_regular

# While the digest is computed, zeros stand in its place.
UNSEALED = "0" * 64
# How the header has it.  Inside a text of the header a quotation mark would have a backslash.
MARK = b'"sha256":"'

# Characters of each text in the header: a network of a thousand layers needs some ten thousand, its
# checkpoint with Adam some hundred thousand.  Parsed, JSON can take thirty times its length.
MAX_TEXT = 1 << 20
# Bytes of a header; it also names the arrays, and has a backslash before each quotation mark.
MAX_HEADER = 1 << 22

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

    Raises
    ------
    ValueError
        When the texts are longer than a reader takes.
    """
    for name, text in metadata.items():
        if len(text) > MAX_TEXT:
            raise ValueError(
                f"the description of this {name} has {len(text)} characters, more than the "
                f"{MAX_TEXT} that a file may have; are there long notes?"
            )
    content = bytearray(library().numpy.save(arrays, {**metadata, "sha256": UNSEALED}))
    if (length := int.from_bytes(content[:8], "little")) > MAX_HEADER:
        raise ValueError(
            f"the header has {length} bytes, more than the {MAX_HEADER} that a file may have"
        )
    place = _place(content)
    content[place] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def check_header(path: Path) -> None:
    """Look whether a file is one whose header can be read in bounded memory.

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    OSError
        As the operating system says.  The library would read the same by mapping the file, and a
        fault of the disk would end the process.
    ValueError
        For what is no regular file, and for a header that is too long.
    """
    with open_regular(path) as (file, size):
        length = int.from_bytes(file.read(8), "little")
        if length > size:
            return  # none of the library's files, as it will say
        if length > MAX_HEADER:
            raise ValueError(f"its header has more than {MAX_HEADER} bytes")
        while length and (piece := file.read(length)):
            length -= len(piece)


def text_of(metadata: Mapping[str, str], name: str) -> str:
    """Return a text of the header; LookupError without it, ValueError when it is too long."""
    text = metadata[name]
    if len(text) > MAX_TEXT:
        raise ValueError(f"its header has a text of more than {MAX_TEXT} characters")
    return text


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
    with open_regular(path) as (file, _):
        header = bytearray(file.read(8))
        end = 8 + int.from_bytes(header, "little")
        while len(header) < end and (piece := file.read(end - len(header))):
            header += piece
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
