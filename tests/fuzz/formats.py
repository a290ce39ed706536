"""The readers: valid files for each, what a result must be, and damage behind checksums."""

import copy
import gzip
import hashlib
import io
import json
import math
import struct
import zipfile
import zlib

import numpy as np

import fastbp
from fastbp.dataset import DatasetError, load_npy, load_npz, read_idx
from fastbp.dataset.idx import idx_header

from .judge import Finding
from .mutate import mutate

# What readers are told they may take, and a file of ours never has; a read asks for 1 MiB.
CAP = 2**22


class Reader:
    """A reader, valid files for it, the exception it documents, and what a result must be."""

    def __init__(self, name, suffix, files, read, error, check, inside=None):
        self.name, self.suffix, self.files = name, suffix, files
        self.read, self.error, self.check = read, error, check
        self.path = None  # where the file must lie, if that matters
        self.inside = inside  # mutates what stands inside a wrapping that stays sound


# --- valid files ---------------------------------------------------------------------------------


def _idx(rng, *shape):
    return idx_header(shape) + rng.integers(0, 10, shape, np.uint8).tobytes()


def _npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def _npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def _model(folder, dtype, **keywords):
    path = folder / "valid.safetensors"
    net = fastbp.MultiLayerNet(3, [2], 2, dtype=dtype, seed=0, **keywords)
    fastbp.save_network(path, net, {"epoch": 3, "by": "nobody"})
    return path.read_bytes()


def _history(folder):
    path = folder / "valid.json"
    fastbp.History([1.0, 0.5], [0, 2], [0.1, 0.9], [], [], [0.0, 0.1], [0.0, 9.0], {"a": [1]}).save(
        path
    )
    return path.read_bytes()


def _valid_npz(rng):
    x, t = rng.normal(size=(6, 2)), rng.integers(0, 3, 6)
    pixels = rng.integers(0, 256, (6, 2, 2), np.uint8)
    split = {"x_train": x[:4], "t_train": t[:4], "x_test": x[4:], "y_test": t[4:]}
    return [
        _npz(x=x, t=t),
        _npz(np.savez_compressed, x=pixels, y=np.eye(3)[t]),
        _npz(**split),
        _npz(np.savez_compressed, x=np.zeros((64, 64), np.float32), t=np.zeros(64, np.int8)),
    ]


# --- what a result must be -----------------------------------------------------------------------


def _check_idx(ndim):
    def check(array, data):
        if array.dtype != np.uint8 or array.ndim != ndim or not array.size:
            raise Finding(f"{array.dtype} of shape {array.shape}")
        expanded = data if data[:2] != b"\x1f\x8b" else gzip.decompress(data)
        if idx_header(array.shape) + array.tobytes() != expanded:
            raise Finding("other elements than the file has")

    return check


def _check_npy(array, data):
    with np.errstate(all="ignore"):
        stored = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        stored = np.asarray(stored / np.float32(255) if stored.dtype == np.uint8 else stored)
        same = array.shape == stored.shape and np.allclose(array, stored, 1e-6, 1e-37)
    if not same or array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
        raise Finding(f"{array!r} where NumPy reads {stored!r}")


def _check_npz(split, data):
    for x, t in split:
        if x.ndim != 2 or not x.size or len(x) != len(t) or not np.isfinite(x).all():
            raise Finding(f"x has shape {x.shape}, t {t.shape}")
        if x.dtype not in (np.float32, np.float64) or not x.flags.c_contiguous:
            raise Finding(f"x has dtype {x.dtype}")
        good = (t >= 0).all() if t.ndim == 1 else (t.sum(1) == 1).all()
        if not good or t.dtype.kind not in "iuf":
            raise Finding(f"t is {t!r}")


def _check_model(result, data):
    net, notes = result
    if not isinstance(notes, dict) or net.dtype not in (np.float32, np.float64):
        raise Finding(f"{net!r}, {notes!r}")
    if not net.is_standard() or sum(p.nbytes for p in net.params.values()) > len(data):
        raise Finding(f"{net!r} is not what its class says")
    with np.errstate(all="ignore"):
        y = net.predict(np.ones((2, net.sizes[0])))
    if y.shape != (2, net.sizes[-1]):
        raise Finding(f"{net!r} predicts {y!r}")


def _check_history(history, data):
    if not isinstance(history.settings, dict) or len(history) != len(history.train_loss_list):
        raise Finding(f"{history.to_dict()}")
    str(history)


def resuming(folder):
    """Return the reader of checkpoints, which is ``fit``."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(4, 3)), rng.integers(0, 2, 4)
    kept, network = folder / "checkpoints", fastbp.MultiLayerNet(3, [2], 2, seed=0)
    start = {key: p.copy() for key, p in network.params.items()}

    def train(steps, resume):
        for key, p in start.items():
            network.params[key] = p.copy()
        for path in kept.glob("*"):
            if path.name != "step-000000002.safetensors":
                path.unlink()
        return fastbp.fit(
            network, x, t, optimizer=fastbp.Adam(), batch_size=2, iterations=steps, seed=3,
            checkpoints=fastbp.Checkpoints(kept), resume=resume, progress=False, threads=1,
        )  # fmt: skip

    train(2, False)
    (path,) = kept.glob("step-*")
    data = path.read_bytes()

    def check(history, data):
        if len(history) != 3 or history.settings["examples"] != 4:
            raise Finding(f"{history}, {history.settings}")

    reader = Reader("checkpoint", ".safetensors", [data], lambda _: train(3, True),
                    (fastbp.CheckpointError, fastbp.DivergedError), check, _sealed_of)  # fmt: skip
    reader.path = path
    return reader


def readers(folder):
    """Return the readers with their valid files, by weight: the quick ones are asked more often."""
    rng = np.random.default_rng(0)
    images, labels = [_idx(rng, 3, 4, 4), _idx(rng, 1, 2, 2)], [_idx(rng, 7), _idx(rng, 1)]
    # Compressed to a thousandth: what nobody would store uncompressed.
    bomb = idx_header((60, 256, 256)) + bytes(60 * 256 * 256)
    arrays = [
        rng.normal(size=(3, 4)),
        rng.integers(0, 9, 5, np.int16),
        np.float32([[1, 2], [3, 4]]).T,
        rng.integers(0, 256, (2, 2), np.uint8),
        np.array([True, False]),
    ]
    packed = [gzip.compress(one, mtime=0) for one in (*images, bomb)]
    tables = [*map(_npy, arrays), _npy(arrays[0], (2, 0))]
    models = [
        _model(folder, np.float32),
        _model(folder, np.float64, activation="sigmoid", weight_decay_lambda=0.1),
    ]
    load, error, idx = fastbp.load_network, DatasetError, _check_idx(3)

    def read(ndim):
        return lambda path: read_idx(path, ndim=ndim, max_bytes=CAP)

    def npy(path):
        return load_npy(path, max_bytes=CAP)

    def npz(path):
        return load_npz(path, max_bytes=CAP)

    return {
        Reader("IDX images", ".idx", images, read(3), error, idx): 30,
        Reader("IDX labels", ".idx", labels, read(1), error, _check_idx(1)): 20,
        Reader("gzip IDX", ".gz", packed, read(3), error, idx, _gzip_of): 20,
        Reader("npy", ".npy", tables, npy, error, _check_npy): 12,
        Reader("npz", ".npz", _valid_npz(rng), npz, error, _check_npz, _npz_of): 5,
        Reader(
            "network", ".safetensors", models, load, fastbp.ModelError, _check_model, _sealed_of
        ): 3,
        Reader(
            "history",
            ".json",
            [_history(folder)],
            fastbp.History.load,
            ValueError,
            _check_history,
            _json_of,
        ): 5,
        resuming(folder): 0.5,
    }


# A change to a file nearly always ends at the first checksum or length.  These damage what stands
# behind it, and write checksum and length that fit.


def _gzip_of(r, data, others):
    content = zlib.decompressobj(31).decompress(data, 4096)
    return gzip.compress(mutate(r, content, others), 1, mtime=0)


def _npz_of(r, data, others):
    file = io.BytesIO()
    method = r.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    names = r.choice((("x", "t"), ("x_train", "t_train", "x_test", "t_test"), ("y", "x"), ("x",)))
    broken = r.randrange(len(names))
    with zipfile.ZipFile(file, "w", method) as archive:
        for i, name in enumerate(names):
            member = _npy(np.ones((4, 2)) if name[0] == "x" else np.arange(4))
            archive.writestr(f"{name}.npy", mutate(r, member, others) if i == broken else member)
    return file.getvalue()


ODD_VALUES = (None, True, -1, 0, 1, 2, 3, 2**31, 2**63, 10**400, -(10**400), 0.5, 1e308, -1e308,
              math.nan, math.inf, "", "relu", "tanh", [], [3, 2, 2], [1] * 50, {}, {"a": 1},
              [[[[]]]], "F16", "I64", [0, 8], [8, 0], [0, 2**60])  # fmt: skip


def _change_value(r, tree):
    """Put an odd value somewhere into a tree of dicts and lists, or take something out."""
    while True:
        key = r.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        if not isinstance(tree[key], (dict, list)) or not tree[key] or r.random() < 0.3:
            break
        tree = tree[key]
    if r.random() < 0.15:
        del tree[key]
    else:
        tree[key] = copy.deepcopy(r.choice(ODD_VALUES))


def _json_of(r, data, others):
    tree = json.loads(data)
    for _ in range(r.choice((1, 1, 2))):
        if tree:
            _change_value(r, tree)
    return json.dumps(tree).encode()


def _sealed_of(r, data, others):
    """Return a safetensors file with other values, and the SHA-256 that belongs to them."""
    (length,) = struct.unpack_from("<Q", data)
    header, elements = json.loads(data[8 : 8 + length]), data[8 + length :]
    texts = header["__metadata__"]
    if r.random() < 0.6:
        name = "network" if "network" in texts else "training"
        about = json.loads(texts[name])
        _change_value(r, about)
        texts[name] = json.dumps(about)
    elif r.random() < 0.5:
        elements = mutate(r, elements, others)
    else:
        _change_value(r, header)
    if isinstance(header.get("__metadata__"), dict) and r.random() < 0.9:
        header["__metadata__"]["sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    content = (
        struct.pack("<Q", len(text) + -len(text) % 8) + text + b" " * (-len(text) % 8) + elements
    )
    return content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1)
