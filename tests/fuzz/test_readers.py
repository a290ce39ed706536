"""A hundred thousand mutated files through the readers, and mutations that reach every part."""

import contextlib
import gzip
import math
import random
import struct

import numpy as np
import pytest

import fastbp
from fastbp.checkpoint import sealed_network
from fastbp.dataset import DatasetError, read_idx
from fastbp.dataset.idx import idx_header

from . import api, formats, readers
from .mutate import CHANGES, mutate

SEED = 1
INPUTS = 100_000


@pytest.fixture
def trial():
    with (
        api.scratch() as folder,
        contextlib.closing(readers.Trial(folder, SEED, quick=True)) as trial,
    ):
        yield trial


def test_a_hundred_thousand_mutated_files(trial):
    findings = readers.run(trial, INPUTS, measured=1024)
    assert not findings, "\n".join(f"--seed {SEED} --only {n}: {f}" for n, f in findings)
    assert sum(trial.outcomes.values()) == INPUTS
    assert 0 < trial.peak <= 2 * formats.CAP
    # Every reader refuses some, and takes some that are still files; fit is asked a few times only.
    for reader in trial.readers:
        found = {outcome for name, outcome in trial.outcomes if name == reader.name}
        assert found - {"result"}
        assert "result" in found or reader.name == "checkpoint"


def test_an_input_depends_on_its_number_alone(trial):
    first = [trial.input(number) for number in range(50)]
    assert [trial.input(number) for number in range(50)] == first
    assert len({data for _, data in first}) > 40


def test_valid_files_are_read(trial):
    for reader, path in trial.paths.items():
        for data in reader.files:
            path.write_bytes(data)
            if reader.name == "gzip IDX" and len(data) > 1000:  # the bomb
                with pytest.raises(DatasetError, match="bomb"):
                    reader.read(path)
            else:
                reader.check(reader.read(path), data)


@pytest.mark.parametrize("change", sorted({f.__name__ for f in CHANGES}))
def test_every_change_changes(change, monkeypatch):
    (function,) = {f for f in CHANGES if f.__name__ == change}
    monkeypatch.setattr("fuzz.mutate.CHANGES", (function,))
    data, changed = bytes(range(200)), 0
    for seed in range(20):
        changed += mutate(random.Random(seed), data, [data[::-1]]) != data
    assert changed >= 10


# --- what a run would find -----------------------------------------------------------------------


def trusting(path, *, ndim, max_bytes):
    """Read an IDX file as one who believes its header."""
    data = path.read_bytes()
    shape = struct.unpack(f">{ndim}I", data[4 : 4 + 4 * ndim])
    return np.frombuffer(data[4 + 4 * ndim :], np.uint8)[: math.prod(shape)].reshape(shape)


def greedy(path, *, ndim, max_bytes):
    """Read as the reader does, but with room for what the header says."""
    data = path.read_bytes()[:16]
    if len(data) == 16:
        np.ones(min(math.prod(struct.unpack(">3I", data[4:])), 2**25), np.uint8)
    return read_idx(path, ndim=ndim, max_bytes=max_bytes)


@pytest.mark.parametrize(("bug", "what"), [(trusting, "IDX"), (greedy, "more than twice the cap")])
def test_a_planted_bug_is_found(trial, monkeypatch, bug, what):
    monkeypatch.setattr(formats, "read_idx", bug)
    findings = readers.run(trial, 1000, measured=1)
    assert any(what in str(finding) for _, finding in findings)


def test_the_command_counts_and_tells(capsys):
    arguments = readers.parser().parse_args(["--inputs", "300", "--seed", "2"])
    assert readers.work(arguments, lambda number: None) == 0
    said = capsys.readouterr().out
    assert "seed 2: 300 inputs" in said
    assert " 0 findings" in said


def model(sizes):
    """Return a network's file."""
    network = fastbp.MultiLayerNet(sizes[0], sizes[1:-1], sizes[-1], dtype=np.float32, seed=0)
    return sealed_network(network, network.params)


NEAR = {
    "IDX images": lambda: idx_header((63, 256, 256)) + bytes(63 * 2**16),
    "gzip IDX": lambda: gzip.compress(
        idx_header((63, 256, 256)) + random.Random(0).randbytes(63 * 2**16), 1
    ),
    "npy float64": lambda: formats._npy(np.ones((504, 1024))),
    "npy uint8": lambda: formats._npy(np.ones((1000, 1024), np.uint8)),
    "npy int64": lambda: formats._npy(np.ones((504, 1024), np.int64).T),
    "npz float64": lambda: formats._npz(x=np.ones((500, 1024)), t=np.zeros(500, int)),
    "npz uint8": lambda: formats._npz(x=np.ones((1000, 1024), np.uint8), t=np.zeros(1000, int)),
    "network": lambda: model((1024, 900, 2)),
    "npz one-hot": lambda: formats._npz(x=np.ones((900, 512)), t=np.eye(2)[np.zeros(900, int)]),
}


@pytest.mark.parametrize("name", NEAR)
def test_files_as_large_as_the_cap_take_at_most_twice_as_much(trial, name):
    (reader,) = {r for r in trial.readers if name.startswith(r.name)}
    data = NEAR[name]()
    trial.paths[reader].write_bytes(data)
    reader.check(trial._read(reader, measured=True), data)
    assert 0.9 * formats.CAP < trial.peak <= 2 * formats.CAP
