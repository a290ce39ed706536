"""Damaged files: what a disk, a cut connection or somebody hostile makes of good ones."""

import struct

# What integers in headers are set to.
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1)
WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
TEXT = (
    *(b"0", b"-1", b"99999999999999999999", b"1e999", b"null", b"NaN", b"True", b"{}", b"W1"),
    *(b"[", b"}", b'"', b"\\u0000", b"(" * 50, b"[[[[[[[[", b"\xff"),
    *(b"'O'", b"'<f8'", b"'|S1'", b"'|a8'"),
)


def mutate(r, data, others):
    """Return ``data`` with one to four changes; ``others`` are files to take pieces from."""
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 1, 2, 3, 4))):
        r.choice(CHANGES)(r, data, others)
    return bytes(data)


def _place(r, data):
    """Return a place in the file: more often in its first bytes, where headers are."""
    end = len(data)
    if not end:
        return 0
    return r.randrange(min(end, r.choice((8, 16, 64, 256, end))))


def _flip(r, data, others):
    if data:
        data[_place(r, data)] ^= 1 << r.randrange(8)


def _byte(r, data, others):
    if data:
        data[_place(r, data)] = r.randrange(256)


def _tail(r, data, others):
    """Change a byte near the end, where archives have their lists of contents."""
    if data:
        data[-1 - r.randrange(min(len(data), r.choice((8, 24, 300))))] = r.choice(
            (0, 1, 0xFF, r.randrange(256))
        )


def _number(r, data, others):
    width = r.choice(tuple(WIDTHS))
    place = _place(r, data) // width * width if r.random() < 0.7 else _place(r, data)
    value = r.choice((*NUMBERS, len(data), len(data) + 1, 2**63, 2**64 - 1)) % 2 ** (8 * width)
    if place + width <= len(data):
        data[place : place + width] = struct.pack(r.choice("<>") + WIDTHS[width], value)


def _cut(r, data, others):
    if r.random() < 0.5:
        del data[_place(r, data) :]
    else:
        del data[len(data) - r.randrange(1 + min(len(data), 16)) :]


def _drop(r, data, others):
    start = _place(r, data)
    del data[start : start + r.choice((1, 2, 4, 16))]


def _insert(r, data, others):
    start = _place(r, data)
    data[start:start] = r.randbytes(r.choice((1, 2, 4, 16)))


def _text(r, data, others):
    start = _place(r, data)
    piece = r.choice(TEXT)
    data[start : start + (len(piece) if r.random() < 0.5 else r.randrange(4))] = piece


def _append(r, data, others):
    data += r.choice((b"\0", b"\0" * 16, r.randbytes(3), r.choice(others)[:64]))


def _splice(r, data, others):
    other = r.choice(others)
    start, begin = _place(r, data), _place(r, other)
    data[start:] = other[begin:]


def _twice(r, data, others):
    start = _place(r, data)
    data[start:start] = data[start : start + r.choice((1, 4, 32))]


CHANGES = (_flip, _flip, _byte, _tail, _number, _number, _number, _cut, _drop, _insert, _text,
           _append, _splice, _twice)  # fmt: skip
