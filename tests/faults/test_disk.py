"""Faults of the disk: what was there stays, or what is new is there whole; nothing is left over."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from disk import Watched, after_a_crash

import fastbp
from fastbp import _files
from fastbp.checkpoints import Keeper, _read
from fastbp.cli import main
from fastbp.kernels.jit import JIT_DISABLED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the calls are those of POSIX")
MOST_CALLS = 500  # a save makes a dozen


def network(seed):
    return fastbp.TwoLayerNet(20, 8, 3, dtype=np.float32, seed=seed)


def history(n):
    numbers = [float(i + 1) for i in range(n)]
    return fastbp.History(
        train_loss_list=numbers, steps=[0, n], train_acc_list=[0.1, 0.5], times=[0.0, 1.0]
    )


def content(folder):
    """Return every file below a folder: what its name is, and what is in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def picture(path, n):
    from matplotlib.figure import Figure

    from fastbp.plot import write_figure

    write_figure(Figure(figsize=(0.1, 0.1), facecolor=(0.1 * n, 0, 0)), path)


def params(path):
    """Return the parameters in a file: safetensors has the names in any order."""
    return {key: p.tobytes() for key, p in fastbp.load_network(path)[0].params.items()}


# name: the file, how to write the i-th version of it, and how to read what is in it
SAVES = {
    "network": (
        "model.safetensors",
        lambda path, i: fastbp.save_network(path, network(i)),
        params,
    ),
    "history": (
        "history.json",
        lambda path, i: history(i + 2).save(path),
        lambda path: fastbp.History.load(path).to_dict(),
    ),
    "picture": ("curves.png", lambda path, i: picture(path, i + 2), Path.read_bytes),
}


def error_of(function, *arguments):
    """Return the OSError of a call, or None."""
    try:
        function(*arguments)
    except OSError as error:
        return error
    return None


every_save = pytest.mark.parametrize("name", SAVES)


@pytest.mark.parametrize("old", [False, True], ids=["new file", "existing file"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@every_save
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_save_fails_at_every_call_in_turn_until_one_passes(name, code, old, tmp_path):
    file, save, read = SAVES[name]
    twin, folder = tmp_path / "twin", tmp_path / "folder"
    twin.mkdir()
    save(twin / file, 1)
    new = read(twin / file)
    failed_calls = set()
    for fails_at in range(1, MOST_CALLS):
        folder.mkdir()
        if old:
            save(folder / file, 0)
            assert read(folder / file) != new
        before = content(folder)
        with Watched(folder, fails_at, code) as disk:
            error = error_of(save, folder / file, 1)
        if error is None:
            break
        assert error.errno == code
        failed_calls.add(disk.calls[fails_at - 1])
        if "replace" in disk.calls[: fails_at - 1]:
            assert list(content(folder)) == [file]
            assert read(folder / file) == new
        else:
            assert content(folder) == before
        shutil.rmtree(folder)
    assert not disk.has_failed
    assert read(folder / file) == new
    assert list(content(folder)) == [file]
    assert failed_calls >= {"open", "fdopen", "write", "flush", "fsync", "replace"}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_training_fails_at_every_call_in_turn_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fastbp.cli.train.find_spec", lambda name: name == "safetensors" or None)
    arguments = ["train", "--iterations", "3", "--seed", "0", "--quiet", "--force", "--out"]
    out = tmp_path / "out"
    assert main([*arguments, str(out)]) == 0
    before, right = content(out), params(out / "model.safetensors")
    failures = 0
    for fails_at in range(1, MOST_CALLS):
        with Watched(out, fails_at) as disk:
            code = main([*arguments, str(out)])
        now = content(out)
        assert now.keys() == before.keys()  # nothing is left over
        assert params(out / "model.safetensors") == right  # the seed is the same
        fastbp.History.load(out / "history.json")
        err = capsys.readouterr().err
        if code == 0:
            if not disk.has_failed:
                break
            continue
        failures += 1
        assert code in (1, 2)
        assert os.strerror(errno.EIO) in err
        assert len(err.splitlines()) == 1
    assert failures > 15


# --- checkpoints ---------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(JIT_DISABLED, reason="the loop is compiled, or takes minutes")
STEPS, EVERY = 9, 2


def train(folder=None, resume=False, steps=STEPS):
    """Train with checkpoints; return all the bits of the parameters."""
    rng = np.random.default_rng(0)
    x, t = rng.random((40, 20), np.float32), rng.integers(0, 3, 40)
    net, options = network(0), {}
    if folder is not None:
        kept = fastbp.Checkpoints(folder, every=EVERY, keep=2)
        options = {"checkpoints": kept, "resume": resume}
    fastbp.fit(net, x, t, batch_size=10, iterations=steps, seed=0, progress=False, **options)
    return b"".join(net.params[key].tobytes() for key in sorted(net.params))


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(_files.PREFIX)]


@needs_compiler
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_checkpoints_fail_at_every_call_in_turn_and_the_training_can_go_on(tmp_path):
    right = train()
    failures = 0
    for fails_at in range(1, MOST_CALLS):
        folder = tmp_path / str(fails_at)
        folder.mkdir()
        with Watched(folder, fails_at) as disk:
            error = error_of(train, folder)
        if not disk.has_failed:
            assert error is None
            break
        if error is not None:  # else an old checkpoint stays a little longer
            assert os.strerror(errno.EIO) in str(error)
            failures += 1
        assert leftovers(folder) == []
        steps = [int(path.stem[5:]) for path in folder.glob("step-*")]
        for step in steps:
            _read(folder / f"step-{step:09}.safetensors")  # all that is there is valid
        assert train(folder, resume=True) == right
    assert failures > 30


@needs_compiler
def test_a_loss_of_power_at_any_moment_leaves_the_newest_acknowledged_checkpoint(
    tmp_path, monkeypatch
):
    folder, power = tmp_path / "checkpoints", tmp_path / "after"
    folder.mkdir()
    power.mkdir()
    save = Keeper.save

    def acknowledged(keeper):
        save(keeper)
        disk.record.append(("acknowledged", len(keeper.history)))

    monkeypatch.setattr(Keeper, "save", acknowledged)
    with Watched(folder) as disk:
        train(folder)
    right = {
        int(path.stem[5:]): path.read_bytes() for path in folder.glob("step-*")
    }  # those that are kept
    believed = 0
    for n in range(len(disk.record) + 1):
        promised = max((a for what, a, *_ in disk.record[:n] if what == "acknowledged"), default=0)
        for state in after_a_crash({}, disk.record[:n]):
            valid = []
            for name, data in state.items():
                if name.startswith("step-"):
                    path = power / "file"
                    path.write_bytes(data)
                    try:
                        _read(path)
                    except ValueError:
                        continue
                    step = int(name[5:14])
                    valid.append(step)
                    assert right.get(step, data) == data
            assert max(valid, default=0) >= promised
            believed += bool(promised)
    assert believed > 20


# --- a loss of power -----------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["new file", "existing file"])
@every_save
def test_a_loss_of_power_leaves_the_old_file_or_the_new_one(name, old, tmp_path):
    file, save, _ = SAVES[name]
    if old:
        save(tmp_path / file, 0)
    before = content(tmp_path)
    with Watched(tmp_path) as disk:
        save(tmp_path / file, 1)
    new = (tmp_path / file).read_bytes()
    states = 0
    for n in range(len(disk.record) + 1):
        for state in after_a_crash(before, disk.record[:n]):
            states += 1
            assert state.get(file) in (before.get(file), new)
            if n == len(disk.record):  # the save has returned
                assert state == {file: new}
    assert states > 10


@pytest.mark.parametrize("forgotten", ["flush", "flush folder"])
def test_the_model_of_the_disk_notices_a_flush_that_is_forgotten(forgotten, tmp_path):
    file, save, _ = SAVES["network"]
    save(tmp_path / file, 0)
    before = content(tmp_path)
    with Watched(tmp_path) as disk:
        save(tmp_path / file, 1)
    new = (tmp_path / file).read_bytes()
    record = [operation for operation in disk.record if operation[0] != forgotten]
    assert len(record) == len(disk.record) - 1
    found = [state.get(file) for state in after_a_crash(before, record)]
    assert set(found) - {new}


# --- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip("needs the right to mount a disk of its own")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_file(small_disk):
    path = small_disk / "model.safetensors"
    fastbp.save_network(path, network(0))
    before = content(small_disk)
    big = fastbp.TwoLayerNet(200, 100, 10, seed=0)
    with pytest.raises(OSError, match="No space left"):
        fastbp.save_network(path, big)
    assert content(small_disk) == before
    fastbp.save_network(path, network(1))  # there is room again
    assert content(small_disk) != before


@needs_compiler
def test_checkpoints_on_a_full_disk_say_so_and_leave_those_before(small_disk):
    right = train()
    filler = small_disk / "filler"
    train(small_disk, steps=4)
    room = 64 * 1024 - sum(-(-len(data) // 4096) * 4096 for data in content(small_disk).values())
    filler.write_bytes(bytes(room - 4096))
    before = content(small_disk)
    with pytest.raises(OSError, match=r"the checkpoint of step . cannot be saved.*No space left"):
        train(small_disk, resume=True)
    after = content(small_disk)
    assert {name: after[name] for name in before if name.startswith("step")} == {
        name: data for name, data in before.items() if name.startswith("step")
    }
    assert leftovers(small_disk) == []
    filler.unlink()
    assert train(small_disk, resume=True) == right


def test_a_limit_on_the_size_of_files_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "model.safetensors"
    fastbp.save_network(path, network(0))
    before = content(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            fastbp.save_network(path, fastbp.TwoLayerNet(200, 100, 10, seed=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(tmp_path) == before
