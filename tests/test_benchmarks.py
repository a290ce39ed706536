"""The commands in ``benchmarks``: whole training steps, growth, accuracy."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import growth, promises, readme, streams, training
from benchmarks.workers import IMPLEMENTATIONS, ON_REQUEST, Worker, missing, serve
from fastbp.bench import workloads
from fastbp.bench.peers import Book, Fastbp
from fastbp.bench.workloads import Workload


def test_the_table_takes_its_place_between_the_marks():
    text = "before\n<!-- begin: table -->\nold\n<!-- end: table -->\nafter\n"
    expected = "before\n<!-- begin: table -->\n| new |\n<!-- end: table -->\nafter\n"
    assert readme.with_table(text, "table", "| new |") == expected


def test_the_table_of_training_steps():
    group = training.Group(
        TINY,
        2,
        [runner("fastbp", 2, 1, us=[50, 60, 70]), runner("torch", 2, 1, us=[500, 480, 490])],
    )
    record = json.loads(training.as_text(training.record([group])))
    row = readme.training_table(record).splitlines()[2]
    assert row == f"| {TINY.title} | 2 | 60 |  |  | 490 (8.0x) |  |"


def test_streams_are_as_long_as_the_layers_arrays(capsys):
    for dtype in ("float32", "float64"):
        found = streams.cases((7, 5), dtype)
        assert found.keys() == {
            f"{layer}.{way}" for layer in ("Relu", "Sigmoid") for way in ("forward", "backward")
        }
    x, y, out = np.arange(6.0), np.arange(6.0) + 1, np.empty(6)
    streams._copy(out, x)
    np.testing.assert_array_equal(out, x)
    streams._multiply(out, x, y)
    np.testing.assert_array_equal(out, x * y)
    assert streams.main(["--rows", "7", "--columns", "5", "--rounds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 4
    for line in lines[2:]:
        *_, numpy, ours, least, faster, most = line.replace("x", " ").split()
        assert min(map(float, (numpy, ours, least))) > 0
        assert float(faster) > 0 < float(most)


def test_big_streams_are_copies_of_the_layers_inputs(monkeypatch, capsys):
    found = streams.big_cases(30)
    assert len(found) == 5
    for calls in found.values():
        assert calls.keys() == {"fastbp", "copy on 1", "copy on 2"}
    for n in (1, 2, 7):
        x, out = np.arange(float(n)), np.empty(n)
        streams._copy_in_halves(out, x)
        np.testing.assert_array_equal(out, x)
    before = streams.threads._fixed
    told = []
    streams.on_threads(lambda: told.append(streams.threads._fixed), 2)()
    assert told == [2]
    monkeypatch.setattr(streams.threads, "_fixed", before)
    cases = streams.big_cases
    monkeypatch.setattr(streams, "big_cases", lambda: cases(30))
    assert streams.main(["--big", "--rounds", "2"]) == 0
    assert streams.threads._fixed == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 5 * min(2, streams.threads.available_cpus())
    for line in lines[2:]:
        *_, n, copy, ours, ratio = line.replace("x", " ").split()
        assert int(n) in (1, 2)
        assert min(map(float, (copy, ours, ratio))) > 0


@pytest.mark.parametrize("option", ["--rows", "--columns", "--rounds"])
def test_streams_of_nothing_are_refused(option, capsys):
    with pytest.raises(SystemExit) as exit_:
        streams.main([option, "0"])
    assert exit_.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err


needs_readme = pytest.mark.skipif(not readme.README.exists(), reason="there is no README here")


@needs_readme
def test_the_readme_shows_what_was_measured(capsys):
    assert readme.main(["--check"]) == 0
    assert capsys.readouterr().out == "all is as measured\n"


@needs_readme
@pytest.mark.parametrize("changed", ["README.md", "operations.json", "training.json", "speed.svg"])
def test_what_differs_from_what_was_measured_is_noticed(changed, tmp_path, monkeypatch, capsys):
    for name in ("README", "OPERATIONS", "TRAINING", "PICTURE"):
        path = getattr(readme, name)
        copy = tmp_path / path.name
        text = path.read_text(encoding="utf-8")
        if path.name == changed:
            old = {"README.md": "µs | ", "speed.svg": "fastbp bench "}.get(changed, "2026")
            assert old in text
            text = text.replace(old, "1999", 1)
        copy.write_text(text, encoding="utf-8")
        monkeypatch.setattr(readme, name, copy)
    assert readme.main(["--check"]) == 1
    if changed == "speed.svg":
        assert capsys.readouterr().out == "speed.svg is not as measured\n"
    pytest.importorskip("matplotlib")
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0


# --- whole training steps ------------------------------------------------------------------------

TINY = Workload("tiny", (64, 20, 10), 20, data="digits", rows=200)
TINY_WORKLOADS = [
    TINY,
    replace(TINY, sizes=(64, 20, 15, 10), dtype="float64"),
    replace(TINY, optimizer="momentum", lr=0.01),
    replace(TINY, optimizer="adam", lr=0.001),
    replace(TINY, decay=0.01),
    replace(TINY, data="random sparse", sizes=(30, 20, 10)),
]
EXACT = {"float32": 1e-5, "float64": 1e-12}


@pytest.mark.parametrize("workload", TINY_WORKLOADS, ids=lambda workload: workload.title)
def test_fit_takes_the_steps_of_the_books_loop(workload):
    book, fastbp = Book(workload, 1), Fastbp(workload, 1)
    before, after = book.check(30)
    assert after < before
    np.testing.assert_allclose(fastbp.check(30), (before, after), EXACT[workload.dtype])
    for ours, theirs in zip(fastbp.parameters(), book.parameters(), strict=True):
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p, q, 0, 10 * EXACT[workload.dtype])


def runner(label, before, after, us=(), workload=TINY, threads=1):
    return training.Runner(label, label, workload, threads, list(us), before, after)


def test_losses_must_agree_and_something_must_be_learned():
    right = runner("fastbp", 2.3, 1.3)
    assert runner("book", 2.3, 1.301).agrees(right)
    assert not runner("another result", 2.3, 1.32).agrees(right)
    assert not runner("other weights", 2.4, 1.3).agrees(right)
    assert not runner("no step taken", 2.3, 2.3).agrees(right)
    nothing = runner("fastbp", 2.3, 2.3)
    assert not runner("book", 2.3, 2.2999).agrees(nothing)


def test_ratios_are_of_the_same_round():
    ours = runner("fastbp", 2, 1, us=[1.0, 10.0, 2.0])
    assert runner("book", 2, 1, us=[3.0, 30.0, 6.0]).over(ours) == 3


def test_targets_of_times_optimizers_and_threads():
    work = {w.name: w for w in training.WORKLOADS}
    steps = [runner("fastbp", 2, 1, [70.0], work["book"], 2)]
    steps += [runner("fastbp, 1 thread", 2, 1, [80.0], work["book"], 1)]
    held = [t[-1] for t in training.Group(work["book"], 2, steps).targets()]
    assert held == [False, True]
    adam = [runner("fastbp", 2, 1, [11.0], work["digits-adam"])]
    adam += [runner("fastbp, SGD", 2, 1, [10.0], work["digits"])]
    ((_, ratio, target, held),) = training.Group(work["digits-adam"], 1, adam).targets()
    assert (round(ratio, 9), target, held) == (1.1, 1.2, True)
    deep = [runner("fastbp", 2, 1, [2900.0], work["deep"], 2)]
    deep += [runner("fastbp, 1 thread", 2, 1, [4000.0], work["deep"], 1)]
    held = [t[-1] for t in training.Group(work["deep"], 2, deep).targets()]
    assert held == [True, False]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_timed(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        training.main(["--json", str(tmp_path / "no" / "file.json")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_target_has_its_workload():
    names = {w.name for w in training.WORKLOADS}
    assert len(names) == len(training.WORKLOADS)
    targets = [*training.TARGETS, *training.WHOLE_TARGETS]
    assert {name for name, _ in targets} | set(training.OPTIMIZER_TARGETS) <= names
    assert {w.plain for w in training.WORKLOADS} - {""} <= names


def test_a_workload_travels_as_a_line():
    for workload in training.WORKLOADS:
        line = workload.to_json()
        assert "\n" not in line
        assert Workload.from_json(line) == workload


@pytest.mark.parametrize("name", ["fastbp", "book"])
def test_a_worker_answers_every_line(name):
    whole = replace(TINY, whole=3).to_json()
    lines = [f"prepare {TINY.to_json()}", "check 3", "run 12", f"prepare {whole}", "whole"]
    out = io.StringIO()
    serve(name, 1, io.StringIO("".join(line + "\n" for line in lines)), out)
    ready, check, run, again, whole = map(json.loads, out.getvalue().splitlines())
    assert ready == again == {"ready": name}
    assert check["after"] < check["before"]
    assert run["seconds"] > 0
    assert run["steps"] == 12
    assert run["after"] < check["before"]
    assert whole["seconds"] > 0
    assert 0 <= whole["accuracy"] <= 1


def test_a_group_is_measured_in_processes_of_its_own(monkeypatch):
    monkeypatch.setattr(training, "TURN_SECONDS", 0.001)
    group = training.form_group(TINY, 1, ["fastbp", "book"])
    training.measure(group, 2, training.tqdm(disable=True))
    assert group.wrong() == []
    assert [len(r.us) for r in group.runners] == [2, 2]
    assert all(r.after < r.before for r in group.runners)
    lines = list(training.show(group))
    assert len(lines) == 4
    assert "WRONG" not in "".join(lines)
    assert len(training.record([group])["results"]) == 2


OTHERS = [name for name in IMPLEMENTATIONS if name not in ("fastbp", "book", *ON_REQUEST)]


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_take_the_same_steps(name):
    if missing(name):
        pytest.skip(f"{missing(name)} is not installed")
    with Worker(name, 1) as worker:
        for workload in TINY_WORKLOADS:
            worker.ask("prepare", workload.to_json())
            losses = worker.ask("check", 30)
            book = runner("book", *Book(workload, 1).check(30))
            assert runner(name, losses["before"], losses["after"]).agrees(book), workload.title


def test_the_command_writes_its_record_and_fails_for_a_missed_target(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "TURN_SECONDS", 0.001)
    monkeypatch.setattr(training, "WORKLOADS", [TINY])
    monkeypatch.setattr(training, "TARGETS", {("tiny", 1): 0.0})
    file = tmp_path / "record.json"
    command = ["--peers", "--threads", "1", "--rounds", "2", "--json", str(file)]
    assert training.main([*command, "--only", "t*"]) == 0
    (result,) = json.loads(file.read_text())["results"]
    assert (result["runner"], len(result["us"])) == ("fastbp", 2)
    assert training.main([*command, "--check"]) == 1
    assert training.main([*command, "--check", "--only", "other"]) == 0


def test_a_worker_that_dies_is_an_error(capfd):
    with Worker("book", 1) as worker, pytest.raises(RuntimeError, match="process of book ended"):
        worker.ask("dance")
    assert "prepare comes first" in capfd.readouterr().err


def test_what_is_not_installed_is_left_out_and_said(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.workers.find_spec", lambda name: name in ("numpy", "fastbp"))
    assert training.chosen_implementations(list(IMPLEMENTATIONS)) == ["fastbp", "book"]
    assert "jax-scan is left out: jax is missing" in capsys.readouterr().out


def test_synthetic_images_are_named_and_as_dark_as_mnist(monkeypatch):
    monkeypatch.setattr(workloads, "find_mnist", lambda: None)
    book, dense = (w for w in training.WORKLOADS if w.name in ("book", "book-dense"))
    assert "SYNTHETIC" in book.title
    (x, t), (_, t_test) = workloads.load(replace(book, rows=600))
    assert x.dtype == np.float32
    assert 0.18 < (x != 0).mean() < 0.20
    assert set(t) == set(range(10))
    assert len(t_test) == 100
    assert (workloads.load(replace(dense, rows=600))[0][0] != 0).all()


def test_a_cliff_is_a_cost_above_that_of_a_neighbour():
    points = growth.points("random")
    for point in points:
        point.us = [[point.workload.megaflops]]
    assert growth.cliffs(points) == []
    named = {(point.sweep, point.size): point for point in points}
    for key in (("batch", 1), ("hidden", 47), ("hidden", 129), ("batch", 256)):
        named[key].us[0][0] *= 1.4
    assert growth.cliffs(points) == [named["hidden", 129], named["batch", 256]]


def test_megaflops_of_the_books_step():
    book = training.WORKLOADS[0]
    assert book.megaflops == pytest.approx(2e-4 * (2 * 784 * 50 + 3 * 50 * 10))


# --- promises ------------------------------------------------------------------------------------


def test_a_promise_says_what_came_out_and_whether_it_is_kept():
    most, least = (
        promises.Promise("name", 1.1, "x", target, least=target < 1) for target in (1.2, 0.8)
    )
    for promise, sign in ((most, "<= 1.2"), (least, ">= 0.8")):
        assert promise.kept
        assert str(promise).split()[:5] == ["name", "1.1", "x", *sign.split()]
        assert str(promise).endswith(" OK")
        missed = replace(promise, figure=1.3 if promise is most else 0.7)
        assert not missed.kept
        assert str(missed).endswith(" MISSED")


def test_promises_that_are_not_kept_fail_a_check(monkeypatch, capsys):
    told = []

    def group(rounds):
        told.append(promises.on(2))
        yield promises.Promise("kept", rounds, "x", 3)
        yield promises.Promise("missed", rounds, "x", 2)

    before = promises.threads._fixed
    monkeypatch.setattr(promises, "GROUPS", {"group": group})
    arguments = ["--only", "group", "--rounds", "3"]
    assert promises.main(arguments) == 0
    assert promises.main([*arguments, "--check"]) == 1
    assert told == ["2 threads"] * 2
    assert promises.threads._fixed == before
    assert capsys.readouterr().out.splitlines()[-1] == "1 promises not kept"


@pytest.mark.parametrize("name", ["numerical", "interrupt"])
def test_what_is_promised_is_measured(name, monkeypatch):
    monkeypatch.setattr(promises.threads, "_fixed", promises.threads._fixed)
    found = list(promises.GROUPS[name](2))
    assert found
    assert all(promise.figure > 0 and promise.target > 0 for promise in found)
