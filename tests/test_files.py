import errno
import os
import stat
from pathlib import Path

import pytest

from fastbp._files import make_folder, remove_leftovers, write_atomically

SIZES = [0, 1, 4096, 1_000_003]


@pytest.fixture
def path(tmp_path):
    """Where to write, in a folder of its own."""
    return tmp_path / "model.bin"


@pytest.mark.parametrize("size", SIZES)
def test_the_content_is_written_whole(path, size):
    content = bytes(i % 251 for i in range(size))
    write_atomically(path, content)
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", SIZES)
def test_an_existing_file_is_replaced_whole(path, size):
    path.write_bytes(b"old" * 1000)
    write_atomically(path, bytes(size))
    assert path.read_bytes() == bytes(size)


def test_nothing_else_is_left_in_the_folder(path):
    write_atomically(path, b"new")
    assert list(path.parent.iterdir()) == [path]


def test_a_relative_path_is_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically(Path("model.bin"), b"new")
    assert (tmp_path / "model.bin").read_bytes() == b"new"


LONG = pytest.param(
    "x" * 255, marks=pytest.mark.skipif(os.name == "nt", reason="too long with its folder")
)


@pytest.mark.parametrize("name", ["a b", "-", ".hidden", "%s{0}", "ゼロ", LONG])
def test_any_name_the_folder_allows_is_a_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_temporary_file_is_in_the_same_folder_and_hidden(path, monkeypatch):
    seen, fsync = [], os.fsync

    def look(handle):
        seen.append([file.name for file in path.parent.iterdir()])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(path, b"new")
    (temporary,) = seen[0]
    assert temporary.startswith(".")
    assert temporary != path.name


def test_the_bytes_are_on_the_disk_before_the_name_is_and_the_name_after(path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(*arguments, **options):
        events.append("replace")
        return replace(*arguments, **options)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomically(path, b"new")
    assert events == ["file", "replace", "folder"][: 3 if hasattr(os, "O_DIRECTORY") else 2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000, 0o027], ids=oct)
def test_a_new_file_has_the_modes_the_user_gives_new_files(path, mask):
    before = os.umask(mask)
    try:
        write_atomically(path, b"new")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_process_umask_is_never_touched(path, monkeypatch):
    # Threads share it: between a change and its undoing, another one may read the wrong mask.
    monkeypatch.setattr(os, "umask", failing("umask", AssertionError("umask was called")))
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_temporary_name_that_is_taken_is_left_alone(path, monkeypatch):
    tokens = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr("fastbp._files.secrets.token_hex", lambda size: next(tokens))
    taken = path.parent / ".fastbp-aaaaaaaa"
    taken.write_bytes(b"of another process")
    write_atomically(path, b"new")
    assert (taken.read_bytes(), path.read_bytes()) == (b"of another process", b"new")
    assert list(tokens) == []


# --- failures ------------------------------------------------------------------------------------


def failing(call, error):
    """Return the call, failing before it does anything."""

    def fail(*arguments, **options):
        raise error

    return fail


CALLS = ["fsync", "replace", "fdopen", "open"]
ERRORS = [OSError(errno.ENOSPC, "the disk is full"), KeyboardInterrupt("Ctrl-C")]


@pytest.mark.parametrize("error", ERRORS, ids=["OSError", "Ctrl-C"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("old", [None, b"old"], ids=["new file", "existing file"])
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_failure_leaves_the_folder_as_it_was(path, call, error, old, monkeypatch):
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, call, failing(call, error))
    with pytest.raises(type(error), match=r"the disk is full|Ctrl-C"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == (
        {} if old is None else {path.name: old}
    )


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders cannot be flushed")
def test_a_folder_that_cannot_be_flushed_has_the_new_file_whole(path, monkeypatch):
    path.write_bytes(b"old")
    fsync, calls = os.fsync, []

    def fail_second(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.EIO, "input/output error")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail_second)
    with pytest.raises(OSError, match="input/output error"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")  # noqa: PTH112
@pytest.mark.parametrize("call", [None, "fsync", "replace", "fdopen", "open"])
def test_no_file_is_left_open(path, call, monkeypatch):
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    if call is not None:
        monkeypatch.setattr(os, call, failing(call, OSError("the disk is full")))
    try:
        write_atomically(path, b"new")
    except OSError:
        assert call is not None
    monkeypatch.undo()
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_disk_that_is_full_while_writing_leaves_the_old_file(path, monkeypatch):
    path.write_bytes(b"old")
    fdopen = os.fdopen

    def onto_a_full_disk(handle, mode):
        os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
        return fdopen(handle, mode)

    monkeypatch.setattr(os, "fdopen", onto_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, bytes(10_000_000))
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_folder_is_what_the_operating_system_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "model.bin", b"new")


def test_a_folder_is_not_replaced(path):
    path.mkdir()
    (path / "precious").write_bytes(b"old")
    with pytest.raises(OSError, match=r"directory|denied"):
        write_atomically(path, b"new")
    assert list(path.parent.iterdir()) == [path]
    assert (path / "precious").read_bytes() == b"old"


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_is_made_with_those_above_it(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    make_folder(tmp_path / "a" / "b" / "c")
    assert list((tmp_path / "a" / "b" / "c").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders cannot be flushed")
def test_the_names_of_new_folders_are_flushed(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def note(handle):
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    make_folder(tmp_path / "a" / "b")
    assert flushed == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_folder(tmp_path / "a" / "b")
    assert len(flushed) == 2


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "a").write_text("x")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OSError, match="a"):
            make_folder(folder)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", failing("replace", KeyboardInterrupt()))
    monkeypatch.setattr(Path, "unlink", lambda path: None)  # as if killed
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "model.bin", b"new")
    monkeypatch.undo()
    (tmp_path / ".fastbp-notes").write_text("x")
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".fastbp-notes"]
