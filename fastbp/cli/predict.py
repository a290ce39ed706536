"""``fastbp predict``: what a trained network takes a picture, or rows of numbers, for."""

from __future__ import annotations

import argparse
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import DatasetError, load_npy
from ..dataset._untrusted import open_regular_file, read_exactly
from .options import UsageError

# Far more than a photograph needs; a small file can promise more than the memory holds.
MAX_PICTURE_BYTES = 100_000_000
MAX_PIXELS = 50_000_000


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="the class and the probabilities of a picture or of rows of numbers",
        description="Print the class a trained network finds most probable, and the probabilities.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, command="predict")
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="the folder of `fastbp train --out`, or its model.safetensors",
    )
    parser.add_argument(
        "input",
        type=Path,
        metavar="IMAGE|FILE",
        help="a picture (PNG, JPEG, ...), or an array in a .npy file: one example or rows of them "
        "(uint8 counts as pixels from 0 to 255)",
    )
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="whether the picture is dark on light and must be turned round (default: where its "
        "edge is light)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..checkpoint import ModelError, load_network
    from ..functions import softmax

    try:
        network, notes = load_network(options.model)
    except (ModelError, ModuleNotFoundError) as error:
        raise UsageError(f"argument MODEL: {error}") from error
    for key, p in network.params.items():
        if not np.isfinite(p).all():
            raise UsageError(f"argument MODEL: {options.model}: {key} is not finite everywhere")
    D = network.sizes[0]
    if options.input.suffix == ".npy":
        x = _read_rows(options.input, D)
    else:
        shape = _picture_shape(options.model, notes.get("image_shape"), D)
        x = _read_picture(options.input, shape, options.invert)
    probability = softmax(network.predict(x))
    if len(probability) == 1:
        print(_portrait(options.input.name, probability[0]))
    else:
        for n, row in enumerate(probability):
            best = np.argsort(-row)[:3]
            print(f"row {n}: " + ", ".join(f"{c} ({row[c]:.1%})" for c in best))
    return 0


def _portrait(name: str, probability: Any) -> str:
    """Return class and probabilities of one example, with bars."""
    best = int(probability.argmax())
    lines = [f"{name}: {best} ({probability[best]:.1%})", ""]
    for c, p in enumerate(probability):
        lines.append(f"{c:>4} {p:>7.2%} {'#' * round(40 * p)}".rstrip())
    return "\n".join(lines)


def _read_rows(path: Path, D: int) -> Any:
    try:
        x = load_npy(path)
    except DatasetError as error:
        raise UsageError(f"argument FILE: {error}") from error
    if x.size == D:
        return x.reshape(1, D)
    if x.ndim < 2 or x[0].size != D:
        raise UsageError(
            f"argument FILE: {path}: shape {x.shape}, expected ({D},), (N, {D}) or (N, ...) with "
            f"{D} numbers in each example"
        )
    return x.reshape(len(x), D)


def _picture_shape(model: str, shape: Any, D: int) -> tuple[int, int]:
    """Return height and width of the pictures a model was trained on, as its notes have them."""
    if shape is None:
        raise UsageError(
            f"argument IMAGE: the network was not trained on pictures; give a .npy file of {D} "
            "numbers an example"
        )
    is_pair = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not is_pair or min(shape) < 1 or shape[0] * shape[1] != D:
        raise UsageError(f"argument MODEL: {model}: pictures of {shape!r} for {D} inputs")
    return shape[0], shape[1]


def _read_picture(path: Path, shape: tuple[int, int], invert: bool | None) -> Any:
    """Return a picture as one row: grey, of the network's size, light on dark, from 0 to 1."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise UsageError("argument IMAGE: pictures need `pip install 'fastbp[train]'`") from error
    try:
        with open_regular_file(path) as (file, size):
            if size > MAX_PICTURE_BYTES:
                raise DatasetError(path, f"{size:,} bytes, more than {MAX_PICTURE_BYTES:,}")
            content = io.BytesIO(read_exactly(file, size).tobytes())
    except DatasetError as error:
        raise UsageError(f"argument IMAGE: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit on pixels is ours
            with Image.open(content) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels")
                grey = _grey(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError as error:
        raise UsageError(f"argument IMAGE: {path}: not a readable picture") from error
    except (
        *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, ArithmeticError),
        *(EOFError, AttributeError, MemoryError, struct.error, zlib.error),
        Image.DecompressionBombError,
    ) as error:  # whatever a damaged file makes its decoder raise
        raise UsageError(f"argument IMAGE: {path}: not a readable picture ({error})") from error
    small = Image.fromarray(grey).resize(shape[::-1], Image.Resampling.BOX)
    x = np.asarray(small, np.float32)
    edge = np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])
    if invert or (invert is None and np.median(edge) > 0.5):
        x = 1 - x
    return x.reshape(1, -1)


def _grey(image: Any) -> Any:
    """Return a Pillow image as float32 from 0 (black) to 1, on a ground its ink stands out from."""
    if image.mode.startswith("I"):  # 16 bits
        image = image.convert("F").point(lambda value: value / 257).convert("L")
    grey, alpha = (np.asarray(band, np.float32) / 255 for band in image.convert("LA").split())
    ink = float((grey * alpha).sum()) / max(float(alpha.sum()), 1e-6)
    ground = np.float32(ink < 0.5)  # seen only where the picture is transparent
    return grey * alpha + ground * (1 - alpha)
