"""``pytest benchmarks/speed``: what it times, what it notes, and what it refuses."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastbp

pytest.importorskip("pytest_benchmark")

ROOT = Path(__file__).resolve().parent.parent
RELU = "relu forward + backward, 100 x 50, float64, 1 thr"

# A Python that has no torch, whatever is installed.
WITHOUT_TORCH = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
"""


def run(folder, *arguments):
    """Run pytest on the benchmarks, with the fastbp that is tested here."""
    command = ["-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    paths = os.pathsep.join([str(folder), str(Path(fastbp.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, *command, str(ROOT / "benchmarks" / "speed"), *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """What one run printed, and its folder."""
    folder = tmp_path_factory.mktemp("speed")
    (folder / "sitecustomize.py").write_text(WITHOUT_TORCH)
    options = ["-k", "relu and float64", "--benchmark-json=speed.json"]
    options += ["--implementations=reference,fastbp,torch"]
    options += ["--benchmark-histogram=speed"] * (find_spec("pygal") is not None)
    done = run(folder, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder


def test_a_group_is_an_operation_on_a_shape_with_its_implementations(timed):
    printed, folder = timed
    record = json.loads((folder / "speed.json").read_text())
    assert f"benchmark '{RELU}': 2 tests" in printed
    assert {benchmark["group"] for benchmark in record["benchmarks"]} == {RELU}
    (ours,) = (b for b in record["benchmarks"] if b["name"].endswith(", fastbp]"))
    info, seconds = ours["extra_info"], ours["stats"]["median"]
    assert (info["operation"], info["shape"]) == ("relu forward + backward", [100, 50])
    assert (info["dtype"], info["threads"]) == ("float64", 1)
    assert info["largest difference from the reference"] <= 1e-12
    assert info["GF/s"] == pytest.approx(info["flops"] / seconds / 1e9)
    assert info["GB/s"] == pytest.approx(info["bytes"] / seconds / 1e9)
    assert 0 < info["share of peak"] < 2


def test_who_is_not_here_is_named(timed):
    printed, _ = timed
    assert "left out: torch, torch is not installed" in printed


# Not importorskip: with pygal imported, every later import of other tests warns.
@pytest.mark.skipif(find_spec("pygal") is None, reason="pygal is not installed")
def test_the_histogram_is_a_picture(timed):
    (picture,) = timed[1].glob("*.svg")
    assert "<svg" in picture.read_text(encoding="utf-8")


def test_an_ordinary_run_of_pytest_leaves_it_out(pytestconfig):
    assert (ROOT / "benchmarks/speed/test_speed.py").is_file()
    assert pytestconfig.getini("testpaths") == ["tests"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--implementations", "fastbp,caffe"), "--implementations: no caffe among reference, "),
        (("--threads", "0"), "--threads: from 1 to "),
        (("-p", "no:benchmark"), "pytest-benchmark is not installed"),
    ],
)
def test_wrong_use_ends_with_one_line(tmp_path, arguments, reason):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert reason in line
