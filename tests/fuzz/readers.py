"""Mutated files through every reader: the documented exception or the right data, nothing else.

    python -m tests.fuzz.readers --inputs 10000000 --seed 1

An input depends on the seed and its number alone: ``--seed 1 --only 4711`` reads input 4711 again.
Every 256th input is read with its memory measured: at most twice the cap the reader was given.
"""

import argparse
import contextlib
import gzip
import io
import json
import math
import os
import random
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections import Counter

import numpy as np

import fastbp
from fastbp.dataset import DatasetError, load_npy, load_npz, read_idx
from fastbp.dataset.idx import idx_header

from .api import ENOUGH, scratch, supervised, table
from .judge import Finding, quiet_is_an_error
from .mutate import mutate

# What readers are told they may take, and a file of ours never has; a read asks for 1 MiB.
CAP = 2**22
MEASURED = 256


class Reader:
    """A reader, valid files for it, the exception it documents, and what a result must be."""

    def __init__(self, name, suffix, files, read, error, check, inside=None):
        self.name, self.suffix, self.files = name, suffix, files
        self.read, self.error, self.check = read, error, check
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
    fastbp.History([1.0, 0.5], [0, 2], [0.1, 0.9], [], [], [0.0, 0.1], [0.0, 9.0], {"a": [1]}).save(path)
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


def readers(folder):
    """Return the readers with their valid files, by weight: the quick ones are asked more often."""
    rng = np.random.default_rng(0)
    images, labels = [_idx(rng, 3, 4, 4), _idx(rng, 1, 2, 2)], [_idx(rng, 7), _idx(rng, 1)]
    # A ratio of 1000: what nobody would store uncompressed.
    bomb = idx_header((60, 256, 256)) + bytes(60 * 256 * 256)
    arrays = [rng.normal(size=(3, 4)), rng.integers(0, 9, 5, np.int16), np.float32([[1, 2], [3, 4]]).T,
              rng.integers(0, 256, (2, 2), np.uint8), np.array([True, False])]  # fmt: skip
    gz = [gzip.compress(one, mtime=0) for one in images]

    def read(ndim):
        return lambda path: read_idx(path, ndim=ndim, max_bytes=CAP)

    return {
        Reader("IDX images", ".idx", images, read(3), DatasetError, _check_idx(3)): 30,
        Reader("IDX labels", ".idx", labels, read(1), DatasetError, _check_idx(1)): 20,
        Reader("gzip IDX", ".gz", [*gz, gzip.compress(bomb, mtime=0)], read(3), DatasetError, _check_idx(3),
               _gzip_of): 20,
        Reader("npy", ".npy", [*map(_npy, arrays), _npy(arrays[0], (2, 0))],
               lambda path: load_npy(path, max_bytes=CAP), DatasetError, _check_npy): 12,
        Reader("npz", ".npz", _valid_npz(rng), lambda path: load_npz(path, max_bytes=CAP),
               DatasetError, _check_npz, _npz_of): 5,
        Reader("network", ".safetensors",
               [_model(folder, np.float32), _model(folder, np.float64, activation="sigmoid", weight_decay_lambda=0.1)],
               fastbp.load_network, fastbp.ModelError, _check_model, _model_of): 3,
        Reader("history", ".json", [_history(folder)], fastbp.History.load, ValueError, _check_history,
               _json_of): 5,
    }  # fmt: skip


# --- reading ---------------------------------------------------------------------------------------


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
        tree[key] = r.choice(ODD_VALUES)


def _json_of(r, data, others):
    tree = json.loads(data)
    for _ in range(r.choice((1, 1, 2))):
        if tree:
            _change_value(r, tree)
    return json.dumps(tree).encode()


def _model_of(r, data, others):
    (length,) = struct.unpack_from("<Q", data)
    header, elements = json.loads(data[8 : 8 + length]), data[8 + length :]
    if r.random() < 0.5:
        about = json.loads(header["__metadata__"]["network"])
        _change_value(r, about)
        header["__metadata__"]["network"] = json.dumps(about)
    else:
        _change_value(r, header)
    if r.random() < 0.2:
        elements = mutate(r, elements, others)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + elements


class Trial:
    """Reads mutated files, and counts what came of them by reader and outcome."""

    def __init__(self, folder, seed):
        self.seed, self.outcomes, self.peak = seed, Counter(), 0
        self.readers = readers(folder)
        self.files = {r: os.open(folder / f"file{r.suffix}", os.O_RDWR | os.O_CREAT) for r in self.readers}
        self.paths = {r: folder / f"file{r.suffix}" for r in self.readers}
        self.all = [data for reader in self.readers for data in reader.files]

    def input(self, number):
        """Return the reader of an input, and its bytes."""
        r = random.Random(self.seed * 2**40 + number)
        (reader,) = r.choices(list(self.readers), self.readers.values())
        data = r.choice(reader.files)
        if reader.inside is not None and r.random() < 0.4:
            return reader, reader.inside(r, data, self.all)
        return reader, mutate(r, data, self.all)

    def run(self, number, measured):
        """Read one input and judge what comes."""
        reader, data = self.input(number)
        file = self.files[reader]
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))
        if measured:
            tracemalloc.start()
        try:
            result = reader.read(self.paths[reader])
        except Exception as error:
            if type(error) is not reader.error or str(self.paths[reader]) not in str(error):
                raise Finding(f"{reader.name}: {type(error).__name__}: {error}") from error
            self.outcomes[reader.name, type(error).__name__] += 1
        else:
            if measured:
                self._measure(reader)
            try:
                reader.check(result, data)
            except Finding as finding:
                raise Finding(f"{reader.name}: accepted, {finding}") from finding
            self.outcomes[reader.name, "result"] += 1
        finally:
            if measured:
                self._measure(reader)
                tracemalloc.stop()

    def _measure(self, reader):
        peak = tracemalloc.get_traced_memory()[1] if tracemalloc.is_tracing() else 0
        self.peak = max(self.peak, peak)
        if peak > 2 * CAP:
            raise Finding(f"{reader.name}: {peak:,} bytes of memory, more than twice the cap")

    def close(self):
        for file in self.files.values():
            os.close(file)


def run(trial, inputs, told=lambda n: None, began=lambda number: None, measured=MEASURED):
    """Read so many inputs; returns the findings as (number, finding)."""
    findings = []
    for number in range(inputs):
        began(number)
        try:
            trial.run(number, number % measured == 0)
        except Finding as finding:
            findings.append((number, finding))
            if len(findings) >= ENOUGH:
                break
        if number % 1024 == 1023:
            told(1024)
    return findings


def work(arguments, began):
    """Read the inputs and print what came of them; returns the exit code."""
    import resource

    from tqdm import tqdm

    quiet_is_an_error()
    with scratch() as folder, contextlib.closing(Trial(folder, arguments.seed)) as trial:
        if arguments.only is not None:
            reader, data = trial.input(arguments.only)
            print(f"{reader.name}, {len(data)} bytes: {data[:200]!r}")
            trial.run(arguments.only, True)
            print("nothing found")
            return 0
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        with tqdm(total=arguments.inputs, unit="file", mininterval=1, dynamic_ncols=True) as bar:
            findings = run(trial, arguments.inputs, bar.update, began)
        seconds = time.perf_counter() - begin
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(table(trial.outcomes))
        print(
            f"\nseed {arguments.seed}: {arguments.inputs:,} inputs in {seconds:.0f} s, "
            f"{seconds / arguments.inputs * 1e6:.0f} us each, {len(findings)} findings; the most "
            f"memory a reader took: {trial.peak / 2**20:.1f} MiB, cap {CAP / 2**20:.0f} MiB; the "
            f"process grew by {grown / 1024:.0f} MiB"
        )
    for number, finding in findings:
        print(f"\n--seed {arguments.seed} --only {number}: {finding}")
    return 1 if findings else 0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.readers", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INPUT", help="read one input again")
    return supervised(parser.parse_args(), work)


if __name__ == "__main__":
    sys.exit(main())
