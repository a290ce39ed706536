import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastbp.bench import cases, machine, peaks, pictures, processes, results, tables, timing
from fastbp.bench.machine import Disagreement
from fastbp.cli import bench
from fastbp.threads import available_cpus

LIMITS = peaks.Limits({"float32": 1e11, "float64": 5e10}, 1e10, 1e11)


@pytest.fixture(autouse=True)
def known_limits(monkeypatch):
    """Measure no limits: that takes seconds."""
    monkeypatch.setattr(peaks, "limits", lambda: LIMITS)
    monkeypatch.setattr(results, "limits", lambda: LIMITS)


# -- Wrong commands -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "relu sideways"], "no operation here is called 'relu sideways'"),
        (["--quick", "--only", "relu forward"], "no operation here is called 'relu forward'"),
        (["--with", "tensorflow"], "'tensorflow' is none of reference, numerical, fastbp, torch"),
        (["--threads", "0"], "'0' is not a positive integer"),
        (["--threads", "1", "100000"], f"100000 is not an integer from 1 to {available_cpus()}"),
        (["--rounds", "many"], "'many' is not a positive integer"),
        (["--plot", "picture.txt"], "picture.txt does not end with svg, png or pdf"),
        (["--json", "nowhere/results.json"], "nowhere/results.json cannot be written: No such"),
        (["--plot", "nowhere/results.svg"], "nowhere/results.svg cannot be written: No such"),
        (["--json", "."], r"argument --json: \. cannot be written: it is a folder"),
        (["everything"], "invalid choice: 'everything'"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_timed(refused, arguments, says):
    refused("bench", *arguments, says=says)


def test_a_picture_without_matplotlib_is_refused(refused, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("bench", "--plot", "picture.svg", says="plots need matplotlib: pip install")


# -- What it shows --------------------------------------------------------------------------------

ONE = ("--only", "kernel relu_forward", "--rounds", 3)


def test_the_operations_can_be_listed(run):
    code, out, err = run("bench", "--list")
    assert (code, err) == (0, "")
    names = out.splitlines()
    assert {"relu forward", "gradient", "training step", "import"} <= set(names)
    assert len(set(names)) == len(names)
    assert set(run("bench", "--list", "--quick").out.splitlines()) < set(names)


def test_a_table_a_record_and_a_picture(run, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ("bench", *ONE, "--with", "reference", "--json", "r.json", "--plot", "p.svg")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert f"numpy {machine.versions()['numpy']}" in out
    assert machine.processor() in out
    rows = [line for line in out.splitlines() if line.startswith("kernel relu_forward")]
    assert [row.split("2000 x 50")[1].split()[:2] for row in rows] == [
        ["float32", "1"],
        ["float64", "1"],
    ]
    assert all(row.rstrip().endswith(("x +", "x =", "x -")) for row in rows)
    assert "against reference: " in out
    record = results.read(tmp_path / "r.json")
    assert [row["operation"] for row in record["results"]] == ["kernel relu_forward"] * 2
    assert all(set(row["medians"]) == {"reference", "fastbp"} for row in record["results"])
    assert pictures.digest(record) in (tmp_path / "p.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("seconds", "rounds"), [(100.0, [2, 3, 4]), (0.0, [1, 2, 2])], ids=["rounds", "seconds"]
)
def test_a_quick_run_spreads_the_rounds_of_each_case_over_the_run(
    seconds, rounds, run, monkeypatch
):
    taken = []
    real = timing.Measurement.take

    def take(measurement, *limits):
        times = real(measurement, *limits)
        taken.append((times.case.name, len(times.values["reference"]) // 2))
        return times

    monkeypatch.setattr(timing.Measurement, "take", take)
    monkeypatch.setattr(bench, "QUICK_SECONDS", seconds)
    monkeypatch.setattr(bench, "QUICK_PASSES", 3)
    only = ("--only", "update Adam", "predict", "--with", "reference", "--rounds", 4)
    code, out, _ = run("bench", "--quick", *only)
    assert code == 0
    names = ["update Adam, 784 x 50", "predict, 1 x 784-50-10", "predict, 10000 x 784-50-10"]
    assert [name[: name.index(", float32")] for name, _ in taken] == 3 * names
    assert [number for _, number in taken] == [number for number in rounds for _ in names]
    rows = [line.split("  ")[0] for line in out.splitlines() if "float32" in line]
    assert rows == ["update Adam", "predict", "predict"]


def test_a_process_that_fails_is_told_in_a_line(run, monkeypatch):
    def fail(*arguments, **environment):
        raise processes.ProcessError("python ended with 1: no memory")

    monkeypatch.setattr(processes, "run", fail)
    code, _, err = run("bench", "--only", "import", "--with", "reference")
    assert (code, err) == (1, "fastbp bench: python ended with 1: no memory\n")


def test_who_is_not_installed_is_named(run, monkeypatch):
    found = machine.find_spec
    monkeypatch.setattr(
        machine, "find_spec", lambda name: None if name in ("torch", "jax") else found(name)
    )
    arguments = ("--only", "softmax", "--rounds", 1, "--with", "torch", "jax", "reference")
    code, out, _ = run("bench", *arguments)
    assert code == 0
    assert "torch is left out: torch is not installed\n" in out
    assert "jax is left out: jax is not installed\n" in out
    assert "against torch" not in out


def test_different_results_are_told_and_fail(run, monkeypatch):
    def differ(case, found):
        raise Disagreement(f"{case.name}: fastbp is off")

    monkeypatch.setattr(timing, "require_agreement", differ)
    code, out, err = run("bench", *ONE)
    assert code == 1
    assert "WRONG: kernel relu_forward, 2000 x 50, float32, 1 thr: fastbp is off\n" in out
    assert err == "fastbp bench: 2 cases with different results\n"


def test_a_peer_that_fails_in_one_case_is_named_there_and_no_other_is_lost(run, monkeypatch):
    real = cases.Case.build

    def build(case, name):
        if name == "torch" and case.dtype == "float32":
            raise ValueError("no such luck\nand more")
        return real(case, "reference" if name == "torch" else name)

    monkeypatch.setattr(cases.Case, "build", build)
    code, out, _ = run(
        *("bench", "--only", "relu forward", "--rounds", 1, "--with", "torch", "--json", "r.json")
    )
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("relu forward")]
    single, double = ([r for r in rows if kind in r] for kind in ("float32", "float64"))
    assert single
    assert double
    assert all(r[-1] == "fails" for r in single)
    assert all(r[-1] in ("+", "=", "-") for r in double)
    assert re.search(
        rf"^torch fails at relu forward, .*, float32, 1 thr and {len(single) - 1} more: "
        "ValueError: no such luck$",
        out, re.MULTILINE,
    )  # fmt: skip
    assert "torch is left out" not in out
    assert "against torch: " in out


def test_failures_in_the_readme():
    fails = row(failed={"sklearn": "ValueError: no"}, shape=[1000, 50], operation="relu")
    record = {
        "date": "2026-01-02", "versions": {"fastbp": "0.1.0"}, "processor": "a processor",
        "load": 0.1, "skipped": {}, "results": [fails, row(failed={"sklearn": "TypeError: oh"})],
    }  # fmt: skip
    text = tables.markdown(record)
    assert "| NumPy | JAX | scikit-learn |" in text
    assert "| **2.00x** | _0.50x_ | fails |" in text
    assert text.endswith(
        "2026-01-02. sklearn fails at relu, 1000 x 50, float32, 1 thr: ValueError: no. "
        "sklearn fails at gradient, 100 x 784-50-10, float32, 1 thr: TypeError: oh."
    )


def test_the_load_is_that_before_anything_is_measured(run, monkeypatch, tmp_path):
    loads = iter([0.6, *[9.0] * 100])
    monkeypatch.setattr(machine, "load", lambda: next(loads))
    code, out, _ = run("bench", *ONE, "--with", "reference", "--json", "r.json")
    assert code == 0
    assert "BUSY MACHINE: load 0.6 before the start" in out
    assert results.read(tmp_path / "r.json")["load"] == 0.6


def test_the_wrong_cases_of_every_process_are_counted(run, monkeypatch):
    answers = iter([(0, 2), (0, 3), (1, 0)])

    def process(command, **options):
        code, wrong = next(answers)
        record = results.record([], {}, 0.0) | {"wrong": wrong}
        Path(command[command.index("--json") + 1]).write_text(results.to_text(record))
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", process)
    monkeypatch.setattr("fastbp.threads.available_cpus", lambda: 2)
    code, _, err = run("bench", *ONE, "--threads", 1, 2)
    assert (code, err) == (1, "fastbp bench: 5 cases with different results\n")
    code, _, err = run("bench", *ONE, "--threads", 1, 2)
    assert (code, err) == (1, "fastbp bench: the process with 1 threads ended with 1\n")


def test_a_process_tells_how_many_of_its_cases_are_wrong(run, monkeypatch, tmp_path):
    def differ(case, found):
        raise Disagreement(f"{case.name}: fastbp is off")

    monkeypatch.setattr(timing, "require_agreement", differ)
    assert run("bench", *ONE, "--part", "--json", "r.json").code == 0
    assert results.read(tmp_path / "r.json")["wrong"] == 2


@pytest.mark.skipif(available_cpus() < 2, reason="needs 2 CPUs")
def test_each_number_of_threads_is_timed_in_a_process_of_its_own(process, tmp_path):
    code, out, err = process(
        *("bench", "--only", "update SGD", "--rounds", 1, "--with", "reference"),
        *("--threads", 1, 2, "--json", tmp_path / "r.json"),
    )
    assert code == 0, err
    record = results.read(tmp_path / "r.json")
    assert [row["threads"] for row in record["results"]] == [1, 1, 2, 2]
    assert out.count("update SGD") == 4
    assert out.count("Beside each") == 1


# -- Records and tables ---------------------------------------------------------------------------


def row(**other):
    return {
        "operation": "gradient",
        "shape": [100, 784, 50, 10],
        "dtype": "float32",
        "threads": 1,
        "unit": "s",
        "flops": 1e7,
        "bytes": 1e5,
        "medians": {"reference": 4e-4, "fastbp": 2e-4, "jax": 1e-4},
        "ratios": {"reference": 2.0, "jax": 0.5},
        "rounds": 3,
    } | other


def test_a_row_says_who_won():
    limits = {"flops": {"float32": 1e11}, "cache": 1e11}
    names = ["reference", "fastbp", "torch", "jax"]
    cells = tables.line(row(), names, limits).split()
    # 1e7 operations in 0.2 ms are half of 1e11 a second.
    assert " ".join(cells) == "gradient 100 x 784-50-10 float32 1 200 µs 50 % 2.00x + . 0.50x -"
    half = {"flops": {"float32": 1e11}, "cache": 5e8}  # 100 operations a byte: 5e10 at most
    assert "100 %" in tables.line(row(), names, half)


def test_two_threads_have_two_roofs():
    limits = {"flops": {"float32": 1e11}, "cache": 1e11}
    assert results.share(row(threads=2), limits) == pytest.approx(0.25)


def test_the_score_counts_wins_and_losses():
    rows = [row(ratios={"torch": ratio}) for ratio in (4.0, 1.0, 0.25)] + [row()]
    assert results.score(rows, "torch") == (1, 1, 1, pytest.approx(1.0))
    assert results.score(rows, "tinygrad")[:3] == (0, 0, 0)


def test_the_table_in_markdown():
    record = {
        "date": "2026-01-02",
        "versions": {"fastbp": "0.1.0", "numpy": "2.0", "torch": "missing"},
        "processor": "a processor",
        "load": 0.1,
        "skipped": {"torch": "torch is not installed"},
        "results": [row(), row(ratios={"reference": 1.01}, threads=2)],
    }
    assert tables.markdown(record).splitlines() == [
        "| | type | fastbp | NumPy | JAX |",
        "|---|---|--:|--:|--:|",
        "| gradient, 100 x 784-50-10 | float32 | 200 µs | **2.00x** | _0.50x_ |",
        "| gradient, 100 x 784-50-10, 2 threads | float32 | 200 µs | 1.01x |  |",
        "",
        "fastbp 0.1.0, numpy 2.0; a processor; 2026-01-02. "
        "torch is left out: torch is not installed.",
    ]
    assert "The machine was busy: load 3.5." in tables.markdown(record | {"load": 3.5})


def test_amounts_have_units():
    assert [tables.amount(v, "s") for v in (2e-7, 1.5e-5, 2e-3, 0.5, 3.0, 2000)] == [
        "0.2 µs", "15 µs", "2 ms", "500 ms", "3 s", "2,000 s",
    ]  # fmt: skip
    assert [tables.amount(v, "s") for v in (0.0009994, 0.0009996, 0.9996, 999.4, 999.6)] == [
        "999 µs", "1 ms", "1 s", "999 s", "1,000 s",
    ]  # fmt: skip
    assert tables.amount(3 * 2**20, "B") == "3 MB"


def test_a_record_is_a_row_a_line_and_comes_back(tmp_path):
    record = {"format": results.FORMAT, "date": "now", "results": [row(), row(threads=2)]}
    text = results.to_text(record)
    assert text.count('"operation"') == sum('"operation"' in line for line in text.splitlines())
    path = tmp_path / "r.json"
    path.write_text(text)
    assert results.read(path) == record
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="is not a record"):
        results.read(path)


def test_records_of_one_machine_become_one():
    first, second = (
        {
            "results": [n],
            "skipped": {str(n): "", "both": f"reason {n}"},
            "limits": {"memory": n, "cache": -n, "flops": {"float32": n, "float64": -n}},
            "load": n,
        }
        for n in (1, 2)
    )
    assert results.merged([first, second]) == {
        "results": [1, 2],
        "skipped": {"1": "", "2": "", "both": "reason 1"},
        "limits": {"memory": 2, "cache": -1, "flops": {"float32": 2, "float64": -1}},
        "load": 1,
    }


@pytest.mark.parametrize("ending", pictures.ENDINGS)
def test_a_picture_in_every_format(tmp_path, ending):
    pytest.importorskip("matplotlib")
    record = {
        "limits": {"flops": LIMITS.flops, "cache": LIMITS.cache},
        "results": [row(), row(flops=0.0, bytes=0.0), row(medians={"fastbp": 1.0}, ratios={})],
    }
    path = tmp_path / f"picture{ending}"
    pictures.write(record, path)
    first = path.read_bytes()
    assert pictures.digest(record).encode() in first
    pictures.write(record, path)
    assert path.read_bytes() == first
    assert "matplotlib.pyplot" not in sys.modules
