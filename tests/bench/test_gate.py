"""The gate: floors, second looks, what it says; and that it catches a slow kernel."""

import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import fastbp
from benchmarks import prove_gate
from fastbp.bench import against, gate, with_kernels
from fastbp.cli import bench_gate, main

ROWS = ("kernel softmax_loss_rows_forward", (1000, 50), "float32")
PREDICT = ("predict", (1000, 784, 512, 256, 10), "float32")
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python 3.11")


@pytest.fixture
def one_case(monkeypatch):
    """Leave the gate one case, timed for a moment."""
    monkeypatch.setattr(gate, "CASES", (ROWS,))
    monkeypatch.setattr(gate, "SECONDS", 0.1)
    (case,) = gate.gate_cases()
    return case


def floor(name, value, median=None):
    median = median or 1.3 * value
    return gate.Floor(name, value, median, value, value, 1, "2026-01-02", "a machine")


def write_floors(path, *floors):
    path.write_text(gate.floors_text(floors), encoding="utf-8")
    return path


# -- Floors ---------------------------------------------------------------------------------------


def test_a_floor_is_half_way_between_least_and_slow():
    found = gate.floor_of("a case", [8.0, 10.0, 9.0])
    assert found.floor == pytest.approx(math.sqrt(8 * 10 / 1.6), abs=1e-3)
    assert (found.median, found.least, found.most, found.runs) == (9, 8, 10, 3)
    assert not found.is_narrow
    assert gate.floor_of("a case", [6.5, 10.0]).is_narrow


@needs_toml
def test_floors_come_back_from_their_file(tmp_path):
    names = [case.name for case in gate.gate_cases()]
    floors = [gate.floor_of(name, [1.0 + i, 1.1 + i]) for i, name in enumerate(names)]
    assert gate.read_floors(write_floors(tmp_path / "floors.toml", *floors)) == floors


def test_every_kernel_and_the_loop_are_in_the_gate():
    operations = {operation for operation, *_ in gate.CASES}
    assert {f"kernel {name}" for name in with_kernels.KERNELS} < operations
    assert {"600 steps", "gradient", "predict", "numerical gradient"} < operations
    assert len(gate.gate_cases()) == len(gate.CASES)
    assert all(case.threads == 1 and not case.long for case in gate.gate_cases())


# -- Verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "looks", "holds"),
    [([5.0], 1, True), ([1.0, 5.0], 2, True), ([1, 2, 4.1], 3, True), ([1, 2, 3.9], 3, False)],
)
def test_what_falls_short_is_looked_at_again_before_it_fails(one_case, ratios, looks, holds):
    left, asked = list(ratios), []

    def look(case, longer):
        asked.append(longer)
        return left.pop(0)

    (verdict,) = gate.judge([floor(one_case.name, 4.0)], [one_case], look)
    assert verdict.holds is holds
    assert verdict.ratio == max(ratios)
    assert asked == list(gate.LOOKS[:looks])


@needs_toml
def test_the_command_says_what_by_how_much_and_how_to_look_closer(one_case, tmp_path, capsys):
    path = write_floors(tmp_path / "floors.toml", floor(one_case.name, 1e6))
    assert main(["bench", "gate", "--floors", str(path)]) == 1
    out = capsys.readouterr().out
    assert "floors of a machine; this is " in out
    assert re.search(rf"{one_case.name} +[\d.]+ *1000000\.00 *1300000\.00  SHORT\n", out)
    assert re.search(r"the floor is 1000000\.00; about [\d.]+ times as slow as on 2026-01-02", out)
    command = f"fastbp bench --only '{ROWS[0]}' --with reference --rounds 50"
    assert f"    closer: {command}\n" in out
    assert out.endswith("1 cases, 1 below the floor\n")
    path = write_floors(path, floor(one_case.name, 0.001))
    assert main(["bench", "gate", "--floors", str(path)]) == 0
    assert capsys.readouterr().out.endswith("1 cases, 0 below the floor\n")


@needs_toml
def test_a_slow_kernel_is_caught_and_the_same_one_unchanged_is_not(
    one_case, tmp_path, monkeypatch, capsys
):
    path = write_floors(tmp_path / "floors.toml", floor(one_case.name, gate.ratio(one_case) / 2))
    assert main(["bench", "gate", "--floors", str(path)]) == 0
    module, name = prove_gate.home(ROWS[0])
    module = importlib.import_module(module)
    slow = prove_gate.Slowed(getattr(module, name), 5.0)
    monkeypatch.setattr(module, name, slow)
    assert main(["bench", "gate", "--floors", str(path)]) == 1
    assert "SHORT" in capsys.readouterr().out


def test_every_operation_of_the_gate_has_a_kernel_to_make_slow():
    for operation, *_ in gate.CASES:
        module, name = prove_gate.home(operation)
        assert callable(getattr(importlib.import_module(module), name))


def test_ratios_and_the_floors_of_some_runs(one_case, tmp_path, monkeypatch, capsys):
    file = tmp_path / "ratios.json"
    assert main(["bench", "gate", "--ratios", str(file)]) == 0
    assert json.loads(file.read_text())[one_case.name] > 0
    ratios = iter([3.0, 3.3, 3.1])

    def run(command, **options):
        Path(command[-1]).write_text(json.dumps({one_case.name: next(ratios)}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench_gate.subprocess, "run", run)
    floors = tmp_path / "floors.toml"
    arguments = ["bench", "gate", "--write-floors", "--runs", "3", "--floors", str(floors)]
    assert main(arguments) == 0
    assert "run 3 of 3" in capsys.readouterr().out
    text = floors.read_text(encoding="utf-8")
    assert "median = 3.1\n" in text
    assert "runs = 3\n" in text


def test_the_busy_core_is_free_again():
    with bench_gate.busy_core() as process:
        assert process.poll() is None
    assert process.poll() is not None


# -- Wrong commands -------------------------------------------------------------------------------


def refused(capsys, *arguments):
    """Run a wrong command; return its one line."""
    capsys.readouterr()
    try:
        code = main(["bench", "gate", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("fastbp bench gate: error: ")
    (line,) = err.splitlines()
    return line


def test_floors_that_are_none(tmp_path, capsys):
    assert "No such file" in refused(capsys, "--floors", tmp_path / "nowhere.toml")
    if sys.version_info < (3, 11):
        return
    path = tmp_path / "floors.toml"
    for text in ("", "case = 1", "not TOML", "[[case]]\nname = 1"):
        path.write_text(text)
        assert "it is no file of floors" in refused(capsys, "--floors", path)
    write_floors(path, floor("dancing, 2 x 2, float32, 1 thr", 1.0))
    assert "'dancing, 2 x 2, float32, 1 thr' is no case" in refused(capsys, "--floors", path)


def test_two_wishes_at_once(capsys, tmp_path):
    line = refused(capsys, "--against", "HEAD", "--write-floors")
    assert "exclude each other" in line
    assert "cannot be written" in refused(capsys, "--ratios", tmp_path / "no" / "r.json")
    folder = tmp_path / "no" / "floors.toml"
    assert "cannot be written" in refused(capsys, "--write-floors", "--floors", folder)
    assert "not a positive integer" in refused(capsys, "--write-floors", "--runs", 0)


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def in_git(folder, *arguments):
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with this package, committed; the working folder."""
    folder = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastbp.__file__).parent, folder / "fastbp", ignore=ignored)
    in_git(folder, "init", "-q", "-b", "main")
    in_git(folder, "add", ".")
    in_git(folder, "commit", "-q", "-m", "as it was")
    monkeypatch.chdir(folder)
    return folder


@needs_git
def test_against_what_is_no_commit(repository, capsys, monkeypatch, tmp_path):
    assert "'nobody' names no commit" in refused(capsys, "--against", "nobody")
    assert "names no commit" in refused(capsys, "--against=--help")
    readme = repository / "fastbp" / "py.typed"
    readme.write_text("changed")
    assert "changes that are not committed" in refused(capsys, "--against", "main")
    with monkeypatch.context() as patch:
        patch.setattr(against.shutil, "which", lambda program: None)
        assert "git is not installed" in refused(capsys, "--against", "main")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "not a git repository" in refused(capsys, "--against", "main")


@needs_git
def test_a_slower_commit_is_found_and_told(repository, monkeypatch, capsys):
    source = repository / "fastbp" / "_network.py"
    text = source.read_text(encoding="utf-8")
    # After the docstring of `predict`.
    end = text.index('"""', text.index('"""', text.index("    def predict(self")) + 3) + 3
    slow = f"{text[:end]}\n        sum(range(4_000_000)){text[end:]}"
    source.write_text(slow, encoding="utf-8")
    in_git(repository, "commit", "-q", "-a", "-m", "slower")
    monkeypatch.setattr(gate, "CASES", (("kernel bias_backward", (1000, 50), "float32"), PREDICT))
    monkeypatch.setattr(against, "LOOKS", (1,))
    monkeypatch.setattr(against, "ROUNDS", 7)
    assert main(["bench", "gate", "--against", "HEAD~1"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^predict, .* 1\.25  SLOWER$", out, re.MULTILINE)
    assert "    closer: fastbp bench --only 'predict'" in out
    assert out.endswith("2 cases, 1 slower, 0 that could not be compared\n")


def test_a_case_that_a_commit_does_not_have_is_told(monkeypatch, one_case):
    def look(old, new, case, rounds):
        raise against.Refused("no such thing there")

    monkeypatch.setattr(against, "look", look)
    (found,) = against.compare(Path("old"), Path("new"), [one_case])
    assert found.problem == "no such thing there"
    assert found.holds
