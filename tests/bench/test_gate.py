"""The gate: floors, second looks, what it says; and that it catches a slow kernel."""

import importlib
import json
import math
import re
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import fastbp
from benchmarks import prove_gate
from fastbp.bench import against, commits, gate, machine, with_kernels
from fastbp.cli import bench_gate, main

ROWS = ("kernel softmax_loss_rows_forward", (1000, 50), "float32")
PREDICT = ("predict", (1000, 784, 512, 256, 10), "float32")
FLOORS = Path(__file__).resolve().parents[2] / "benchmarks" / "floors.toml"
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python 3.11")


@pytest.fixture
def one_case(monkeypatch):
    """Leave the gate one case, timed for a moment."""
    monkeypatch.setattr(gate, "CASES", (ROWS,))
    monkeypatch.setattr(gate, "SECONDS", 0.1)
    (case,) = gate.gate_cases()
    return case


def floor(name, value, median=None, machine="a machine"):
    median = median or 1.3 * value
    return gate.Floor(name, value, median, value, value, 1, "2026-01-02", machine)


def write_floors(path, *floors):
    path.write_text(gate.floors_text(floors), encoding="utf-8")
    return path


# -- Floors ---------------------------------------------------------------------------------------


def test_a_floor_is_half_way_between_least_and_slow():
    found = gate.floor_of("a case", [9.0, 8.0, 10.0])
    assert found.floor == pytest.approx(math.sqrt(8 * 10 / 1.6), abs=1e-3)
    assert (found.median, found.least, found.most, found.runs) == (9, 8, 10, 3)
    assert not found.is_narrow
    assert gate.floor_of("a case", [6.5, 10.0]).is_narrow


def test_the_least_is_what_all_looks_alike_have_shown():
    quiet, busy = [9.0, 9.5, 4.0, 4.0, 8.0, 9.2], [10.0, 5.0, 5.0, 7.0, 5.0, 5.0]
    in_turn = [ratio for pair in zip(quiet, busy, strict=True) for ratio in pair]
    assert gate.floor_of("a case", in_turn).least == 7
    assert gate.floor_of("a case", [8.0, 6.0, 7.0]).least == 6
    assert gate.floor_of("a case", [8.0]).least == 8


@needs_toml
def test_floors_come_back_from_their_file(tmp_path):
    names = [case.name for case in gate.gate_cases()]
    floors = [gate.floor_of(name, [1.0 + i, 1.1 + i]) for i, name in enumerate(names)]
    assert gate.read_floors(write_floors(tmp_path / "floors.toml", *floors)) == floors


@needs_toml
def test_the_floors_here_are_of_the_gates_cases():
    floors = gate.read_floors(FLOORS)
    names = [case.name for case in gate.gate_cases()]
    processors = dict.fromkeys(floor.machine for floor in floors)
    assert [(floor.machine, floor.name) for floor in floors] == [
        (processor, name) for processor in processors for name in names
    ]


def test_a_processor_has_floors_of_its_own_and_else_the_lowest(one_case):
    old, new = floor(one_case.name, 2.0, machine="old"), floor(one_case.name, 3.0, machine="new")
    assert gate.floors_of("old", [old, new]) == [old]
    assert gate.floors_of("new", [old, new]) == [new]
    assert gate.floors_of("neither", [new, old]) == [old]
    with pytest.raises(ValueError, match="1 of the gate's 1 cases have no floor"):
        gate.floors_of("old", [])


def test_every_kernel_and_the_loop_are_in_the_gate():
    operations = {operation for operation, *_ in gate.CASES}
    assert {f"kernel {name}" for name in with_kernels.KERNELS} < operations
    assert {"600 steps", "gradient", "predict", "numerical gradient"} < operations
    assert len(gate.gate_cases()) == len(gate.CASES)
    assert all(case.threads == 1 and not case.long for case in gate.gate_cases())


# -- Verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "looks", "holds"),
    [
        ([5.0], 1, True),
        ([1.0, 5.0], 2, True),
        ([1, 2, 4.1], 3, True),
        ([1, 2, 3, 1, 3.9], 5, False),
    ],
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
    assert re.match(r"no floors of .*: the lowest of others' stand in \(a machine\)", out)
    assert re.search(rf"{one_case.name} +[\d.]+ *1000000\.00 *1300000\.00  SHORT\n", out)
    assert re.search(r"the floor is 1000000\.00; about [\d.]+ times as slow as on 2026-01-02", out)
    command = f"fastbp bench --only '{ROWS[0]}' --with reference --rounds 50"
    assert f"    closer: {command}\n" in out
    assert out.endswith("1 cases, 1 below the floor\n")
    path = write_floors(path, floor(one_case.name, 0.001, machine=machine.processor()))
    assert main(["bench", "gate", "--floors", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("times as fast as NumPy")
    assert out.endswith("1 cases, 0 below the floor\n")


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
    # Those that look a second time have the kernel as it is.
    assert main(["bench", "gate", "--floors", str(path)]) == 0
    assert "at look 2" in capsys.readouterr().out
    again = ["-m", "benchmarks.prove_gate", "--operation", ROWS[0], "--slow", "5.0", "--look"]
    monkeypatch.setattr(gate, "COMMAND", again)
    assert main(["bench", "gate", "--floors", str(path)]) == 1
    assert "SHORT" in capsys.readouterr().out


@needs_toml
def test_a_second_look_that_fails_is_told_in_a_line(one_case, tmp_path, monkeypatch, capsys):
    path = write_floors(tmp_path / "floors.toml", floor(one_case.name, 1e6))
    monkeypatch.setattr(gate, "COMMAND", ["-c", "import sys; sys.exit('no such machine')"])
    assert main(["bench", "gate", "--floors", str(path)]) == 1
    err = capsys.readouterr().err.strip()
    assert err.count("\n") == 0
    assert err.endswith("ended with 1: no such machine")


def test_every_operation_of_the_gate_has_a_kernel_to_make_slow():
    for operation, *_ in gate.CASES:
        module, name = prove_gate.home(operation)
        assert callable(getattr(importlib.import_module(module), name))


def measured(monkeypatch, name, *ratios):
    """Let the runs that floors are written from show these ratios."""
    left = iter(ratios)

    def run(command, **options):
        Path(command[-1]).write_text(json.dumps({name: next(left)}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench_gate.subprocess, "run", run)


def test_ratios_and_the_floors_of_some_runs(one_case, tmp_path, monkeypatch, capsys):
    file = tmp_path / "ratios.json"
    assert main(["bench", "gate", "--ratios", str(file)]) == 0
    assert json.loads(file.read_text())[one_case.name] > 0
    measured(monkeypatch, one_case.name, 3.0, 3.3, 3.1)
    floors = tmp_path / "floors.toml"
    arguments = ["bench", "gate", "--write-floors", "--runs", "3", "--floors", str(floors)]
    assert main(arguments) == 0
    assert "run 3 of 3" in capsys.readouterr().out
    text = floors.read_text(encoding="utf-8")
    assert "median = 3.1\n" in text
    assert "runs = 3\n" in text


@needs_toml
def test_floors_of_other_processors_are_kept(one_case, tmp_path, monkeypatch, capsys):
    other = floor(one_case.name, 2.0, machine="another")
    gone = floor("dancing, 2 x 2, float32, 1 thr", 2.0, machine="another")
    mine = floor(one_case.name, 9.0, machine=machine.processor())
    path = write_floors(tmp_path / "floors.toml", mine, other, gone)
    measured(monkeypatch, one_case.name, 3.0)
    command = ["bench", "gate", "--write-floors", "--runs", "1", "--floors", str(path)]
    assert main(command) == 0
    new, kept = gate.read_floors(path)
    assert (new.machine, new.median) == (machine.processor(), 3.0)
    assert kept == other
    path.write_text("[[case", encoding="utf-8")
    measured(monkeypatch, one_case.name)  # nothing is measured
    line = refused(capsys, *command[2:])
    assert "argument --floors: " in line
    assert "it is no file of floors" in line
    assert path.read_text(encoding="utf-8") == "[[case"


def test_a_clock_that_is_coarse_is_not_the_gates(monkeypatch):
    assert gate.finest_clock("win32") is time.perf_counter
    for resolution, clock in ((1e-9, time.thread_time), (0.0156, time.perf_counter)):
        info = SimpleNamespace(resolution=resolution)
        monkeypatch.setattr(gate.time, "get_clock_info", lambda name, info=info: info)
        assert gate.finest_clock("linux") is clock


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
    for text in ("", "case = 1", "case = [1]", "not TOML", "[[case]]\nname = 1"):
        path.write_text(text)
        assert "it is no file of floors" in refused(capsys, "--floors", path)
    write_floors(path, floor("dancing, 2 x 2, float32, 1 thr", 1.0))
    assert "'dancing, 2 x 2, float32, 1 thr' is no case" in refused(capsys, "--floors", path)


@needs_toml
def test_floors_that_are_not_those_of_the_gate(tmp_path, capsys):
    path = tmp_path / "floors.toml"
    path.write_text("case = []")
    line = refused(capsys, "--floors", path)
    assert "24 of the gate's 24 cases have no floor: 'kernel relu_forward, 2000 x 50, " in line
    assert line.endswith(" and others")
    first, *others = gate.floors_of("nobody's", gate.read_floors(FLOORS))
    line = refused(capsys, "--floors", write_floors(path, *others))
    assert line.endswith(f"1 of the gate's 24 cases have no floor: {first.name!r}")
    line = refused(capsys, "--floors", write_floors(path, first, first, *others))
    assert f"{first.name!r} stands there 2 times" in line


@needs_toml
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("floor", value) for value in ('"x"', "nan", "inf", "0", "-1.5", "true", "[1]")),
        *((key, '"x"') for key in ("median", "least", "most", "runs")),
        *((key, "1") for key in ("name", "date", "machine")),
        ("runs", "1.5"),
    ],
)
def test_floors_that_are_no_numbers(tmp_path, capsys, key, value):
    text = FLOORS.read_text(encoding="utf-8")
    path = tmp_path / "floors.toml"
    path.write_text(re.sub(rf"^{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE))
    line = refused(capsys, "--floors", path)
    assert re.search(rf": {key} of .* is .*, expected a ", line)


def test_two_wishes_at_once(capsys, tmp_path):
    line = refused(capsys, "--against", "HEAD", "--write-floors")
    assert "exclude each other" in line
    assert "cannot be written" in refused(capsys, "--ratios", tmp_path / "no" / "r.json")
    folder = tmp_path / "no" / "floors.toml"
    assert "cannot be written" in refused(capsys, "--write-floors", "--floors", folder)
    assert "not a positive integer" in refused(capsys, "--write-floors", "--runs", 0)


def test_the_options_of_bench_are_not_ignored(capsys):
    assert main(["bench", "--quick", "gate"]) == 2
    assert "none of the gate's" in capsys.readouterr().err


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
        patch.setattr(commits.shutil, "which", lambda program: None)
        assert "git is not installed" in refused(capsys, "--against", "main")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "not a git repository" in refused(capsys, "--against", "main")


def leave_seconds(root, commit, folder):
    """Instead of building a commit: keep the seconds that stand in its tree."""
    folder.mkdir()
    (folder / "seconds").write_bytes(commits.git("show", f"{commit}:fastbp/py.typed", folder=root))
    return folder / "python"


class FakeWorker:
    """Answers with the seconds of a commit."""

    def __init__(self, python, problem=commits.Refused):
        self.seconds = json.loads((python.parent / "seconds").read_text())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ask(self, line):
        word, _, name = line.partition(" ")
        if word == "prepare":
            self.operation = name.split(",")[0]
        return {"seconds": self.seconds[self.operation]}


@needs_git
def test_a_slower_commit_is_found_and_told(repository, monkeypatch, capsys):
    for predict in (1.0, 1.3):
        seconds = {"predict": predict, "kernel bias_backward": 2 - 0.5 * predict}
        (repository / "fastbp" / "py.typed").write_text(json.dumps(seconds))
        in_git(repository, "commit", "-q", "-a", "-m", f"{predict} s")
    monkeypatch.setattr(gate, "CASES", (("kernel bias_backward", (1000, 50), "float32"), PREDICT))
    monkeypatch.setattr(commits, "build", leave_seconds)
    monkeypatch.setattr(against, "Worker", FakeWorker)
    assert main(["bench", "gate", "--against", "HEAD~1"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^predict, .* 1\.30 +1\.25  SLOWER$", out, re.MULTILINE)
    assert "    closer: fastbp bench --only 'predict'" in out
    assert out.endswith("2 cases, 1 slower, 0 that fail, 0 that could not be compared\n")
    assert main(["bench", "gate", "--against", "HEAD"]) == 0


def test_a_case_that_only_one_commit_has(monkeypatch, one_case, capsys):
    monkeypatch.setattr(commits, "resolve", lambda *_: (Path(), "1", "2"))
    monkeypatch.setattr(commits, "build", lambda *_: Path())
    monkeypatch.setattr(against, "gate_cases", lambda: [one_case, replace(one_case, threads=2)])
    problem = commits.Refused("no such thing there")

    def look(old, new, case, rounds):
        if case.threads == 1:
            raise problem
        return 1.0

    monkeypatch.setattr(against, "look", look)
    assert main(["bench", "gate", "--against", "HEAD"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{one_case.name} +- +1.25  the other: no such thing there$", out, re.M)
    assert out.endswith("2 cases, 0 slower, 0 that fail, 1 that could not be compared\n")
    problem = against.Failed("no such thing here")
    assert main(["bench", "gate", "--against", "HEAD"]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"^{one_case.name} +- +1.25  FAILS$", out, re.M)
    assert f"{one_case.name}: this commit fails: no such thing here\n" in out
    assert out.endswith("2 cases, 0 slower, 1 that fail, 0 that could not be compared\n")


def test_what_a_slower_look_has_shown_counts(one_case, monkeypatch):
    seen = iter([2.0])

    def look(old, new, case, rounds):
        for ratio in seen:
            return ratio
        raise commits.Refused("it is gone")

    monkeypatch.setattr(against, "look", look)
    (found,) = against.compare(Path("old"), Path("new"), [one_case])
    assert (found.ratios, found.problem, found.holds) == ((2.0,), "it is gone", False)


def environment(folder, package):
    """Return the Python of an environment that finds a package, and what there is here."""
    venv.create(folder, symlinks=sys.platform != "win32")
    windows = sys.platform == "win32"
    home = folder / "Lib" if windows else next(folder.glob("lib/python3*"))
    lines = [str(package), *filter(None, sys.path)]
    (home / "site-packages" / "here.pth").write_text("\n".join(lines))
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def with_predict(folder, body):
    """Return the Python of an environment whose fastbp has another body of `predict`."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastbp.__file__).parent, folder / "fastbp", ignore=ignored)
    source = folder / "fastbp" / "_network.py"
    text = source.read_text(encoding="utf-8")
    # After the docstring of `predict`.
    end = text.index('"""', text.index('"""', text.index("    def predict(self")) + 3) + 3
    source.write_text(f"{text[:end]}\n        {body}{text[end:]}", encoding="utf-8")
    return environment(folder / "environment", folder)


def test_only_what_is_wrong_in_the_old_commit_is_excused(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "CASES", (PREDICT,))
    monkeypatch.setattr(against, "LOOKS", (1,))
    monkeypatch.setattr(against, "ROUNDS", 1)
    wrong = with_predict(tmp_path / "wrong", "return x[:, :10] * 0")
    dead = with_predict(tmp_path / "dead", "import os; os._exit(7)")
    right = environment(tmp_path / "right", Path(fastbp.__file__).parents[1])
    case = gate.gate_cases()[0]
    # Each takes the cases of its own tree: those of the whole gate.
    (found,) = against.compare(dead, wrong, [case])
    assert found.failure.startswith(f"{case.name}: fastbp is off by ")
    assert not found.holds
    (found,) = against.compare(right, dead, [case])
    assert found.failure == "the process of the commit ended with 7"
    assert not found.holds
    (found,) = against.compare(wrong, right, [case])
    assert found.problem.startswith(f"{case.name}: fastbp is off by ")
    assert found.holds
    (found,) = against.compare(right, right, [case])
    assert (found.problem, found.failure, len(found.ratios)) == ("", "", 1)


# A package that is built without anything from outside.
BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "fastbp-1-py3-none-any.whl"
    files = {{
        "fastbp/__init__.py": "COMMIT = {number}",
        "fastbp/bench/gone.py": "",
        "fastbp-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: fastbp\\nVersion: 1\\n",
        "fastbp-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n",
        "fastbp-1.dist-info/RECORD": "",
    }}
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "fastbp"
version = "1"
"""


@needs_git
def test_each_commit_is_built_with_the_cases_of_this_tree(tmp_path, monkeypatch):
    in_git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for number in (1, 2):
        (tmp_path / "backend.py").write_text(BACKEND.format(number=number))
        in_git(tmp_path, "add", ".")
        in_git(tmp_path, "commit", "-q", "-m", f"{number}")
    monkeypatch.setenv("PYTHONPATH", str(Path(fastbp.__file__).parents[1]))  # not to be found
    look = "import fastbp, glob; print(fastbp.COMMIT, *glob.glob(fastbp.__path__[0] + '/*/*'))"
    for revision, number in (("HEAD~1", 1), ("HEAD", 2)):
        root, commit, _ = commits.resolve(revision, tmp_path)
        python = commits.build(root, commit, tmp_path / f"built {number}")
        done = subprocess.run(
            [python, "-c", look],
            env=commits.clean_environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found, *paths = done.stdout.split("\n")[0].replace(f"built {number}", "built").split()
        assert found == str(number)
        assert {Path(path).name for path in paths} >= {"cases.py", "against.py"}
        assert "gone.py" not in {Path(path).name for path in paths}


@needs_git
def test_a_commit_that_cannot_be_built(tmp_path):
    in_git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text("def build_wheel(*_): raise OSError('no room')")
    in_git(tmp_path, "add", ".")
    in_git(tmp_path, "commit", "-q", "-m", "broken")
    root, commit, _ = commits.resolve("HEAD", tmp_path)
    with pytest.raises(commits.Refused, match=rf"^{commit[:10]} cannot be built: error: \S"):
        commits.build(root, commit, tmp_path / "built")


@needs_toml
def test_the_floors_are_of_enough_runs():
    floors = gate.read_floors(FLOORS)
    assert {floor.runs for floor in floors} == {bench_gate.RUNS}
    processors = {floor.machine for floor in floors}
    assert len({(floor.date, floor.machine) for floor in floors}) == len(processors)


# -- Proving it -----------------------------------------------------------------------------------


def test_whole_networks_are_made_slow_first_and_all_cases_once():
    order = [case.name for case in prove_gate.slow_order()]
    assert sorted(order) == sorted(case.name for case in gate.gate_cases())
    first = {name.split(", ")[0] for name in order[: len(prove_gate.LOOPS)]}
    assert first == {"predict", "gradient", "numerical gradient", "600 steps"}


def line_of(operation):
    (case,) = [c for c in gate.gate_cases() if c.operation == operation]
    return f"{case.name:<58}    1.00    2.00    3.00  SHORT\n"


@pytest.mark.parametrize(
    ("slow", "short", "noticed"),
    [
        ("600 steps", ["600 steps"], True),
        ("600 steps", ["600 steps, no zeros"], False),
        ("600 steps", ["600 steps", "600 steps, no zeros", "predict"], True),
        ("600 steps", ["600 steps", "kernel relu_forward"], False),
        ("kernel softmax_loss_rows_backward", ["kernel softmax_loss_rows_backward"], True),
        ("kernel softmax_loss_forward", ["kernel softmax_loss_rows_forward"], False),
        ("predict", [], False),
    ],
)
def test_only_the_slow_case_itself_counts(slow, short, noticed):
    (case,) = [c for c in gate.gate_cases() if c.operation == slow]
    output = "".join(map(line_of, short)) + "predict, much else\n"
    assert prove_gate.is_noticed(case, output) is noticed


def test_the_runs_are_counted(monkeypatch, capsys):
    asked = []

    def run(command):
        operation = command[command.index("--operation") + 1]
        asked.append(operation)
        return 1, line_of(operation if operation != "gradient" else "kernel relu_forward")

    monkeypatch.setattr(prove_gate, "run_gate", run)
    assert prove_gate.main(["--slow", "1.6"]) == 1
    assert asked == [case.operation for case in prove_gate.slow_order()]
    assert capsys.readouterr().out.endswith("23 of 24 caught\n")
    monkeypatch.setattr(prove_gate, "run_gate", lambda command: (0, ""))
    assert prove_gate.main([]) == 0
    assert capsys.readouterr().out.endswith("20 of 20 without an alarm\n")
