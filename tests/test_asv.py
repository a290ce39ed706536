"""asv's series: each is a row of the table of cases, can be run, and runs with an older fastbp."""

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from textwrap import dedent

import pytest

import fastbp

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import _series, bench_networks, bench_ratios, bench_start

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("time_", "timeraw_", "peakmem_", "track_")


def all_series():
    """Yield (name, class, method) of all that asv finds."""
    for file in sorted((ROOT / "benchmarks").glob("bench_*.py")):
        module = import_module(f"benchmarks.{file.stem}")
        for name, thing in vars(module).items():
            if isinstance(thing, type) and thing.__module__ == module.__name__:
                for method in dir(thing):
                    if method.startswith(KINDS):
                        yield pytest.param(thing, method, id=f"{file.stem}.{name}.{method}")


SERIES = list(all_series())
CLASSES = list(dict.fromkeys(series.values[0] for series in SERIES))


def parameters(of):
    """Every combination of a class's parameters."""
    params = getattr(of, "params", None)
    if params is None:
        return [()]
    return list(product(*params)) if isinstance(params[0], list) else [(p,) for p in params]


def test_there_are_series_of_every_kind():
    methods = [series.values[1] for series in SERIES]
    assert all(any(method.startswith(kind) for method in methods) for kind in KINDS)


@pytest.mark.parametrize("of", CLASSES, ids=lambda of: of.__name__)
def test_a_series_has_a_version_and_a_name_for_every_parameter(of):
    # Without a version asv throws the history away when a line of the code changes.
    assert of.version.isdigit()
    assert of.__doc__
    assert {len(values) for values in parameters(of)} == {len(getattr(of, "param_names", ()))}


def rows(of):
    """The rows of the table that the parameters of a class name."""
    if of in (bench_networks.Fit, bench_ratios.Speedup, bench_ratios.ShareOfPeak):
        return [_series.row(*values) for values in parameters(of)]
    if hasattr(of, "time_forward"):
        names = [f"{of.operation} {direction}" for direction in ("forward", "backward")]
        return [_series.find(name, *values) for name in names for values in parameters(of)]
    if hasattr(of, "operation"):
        return [_series.find(of.operation, *values, of.threads) for values in parameters(of)]
    return []  # their parameters are not rows


def test_every_parameter_is_a_row_of_the_table():
    assert sum(len(rows(of)) for of in CLASSES) > 40
    with pytest.raises(KeyError):
        _series.find("relu forward", "1 x 51 float32")


def test_a_word_names_one_row():
    assert (
        _series.word(_series.find("affine forward", "1 x 784-50 float32")) == "1 x 784-50 float32"
    )
    assert len(_series.CASES) == len(_series.all_cases())


@pytest.fixture(autouse=True)
def threads_as_before():
    """A case sets the number of threads of the process."""
    before = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(before)


TIMED = [series for series in SERIES if series.values[1].startswith(("time_", "peakmem_"))]


@pytest.mark.parametrize(("of", "method"), TIMED)
def test_a_series_runs(of, method):
    instance, values = of(), parameters(of)[0]
    instance.setup(*values)
    getattr(instance, method)(*values)


def test_ratios_are_of_what_was_measured(monkeypatch):
    monkeypatch.setattr(bench_ratios, "ROUNDS", 3)
    relu = "relu forward + backward, 100 x 50 float32"
    assert bench_ratios.Speedup().track_over_numpy(relu) > 0
    assert bench_ratios.Backpropagation().track_over_numerical(1) > 1
    affine = "affine forward + backward, 1000 x 784-50 float32"
    assert 0 < bench_ratios.ShareOfPeak().track_share(affine) < 200
    for series in SERIES:
        of, method = series.values
        if method.startswith("track_"):
            assert getattr(of, method).unit == of.unit


def test_what_is_not_here_is_not_available(monkeypatch):
    monkeypatch.setattr("fastbp.bench.cases.missing", lambda name: f"{name} is not installed")
    with pytest.raises(NotImplementedError, match="fastbp is not installed"):
        _series.warm(_series.find("relu forward", "1 x 50 float32"))


def in_a_process(code, **options):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


RAW = [series for series in SERIES if series.values[1].startswith("timeraw_")]


@pytest.mark.parametrize(("of", "method"), RAW)
def test_a_process_that_is_timed_ends_well(of, method):
    code = getattr(of(), method)()
    statement, setup = code if isinstance(code, tuple) else (code, "")
    if setup.startswith(bench_start.NO_CACHE):
        # Compiling takes a minute: that is for the benchmark.
        setup = setup.removeprefix(bench_start.NO_CACHE)
    home = Path(fastbp.__file__).parents[1]
    in_a_process(f"{dedent(setup)}\n{dedent(statement)}", cwd=home)


def test_without_a_cache_means_a_folder_that_is_gone_afterwards():
    code = dedent(bench_start.NO_CACHE) + "print(os.environ['FASTBP_CACHE_DIR'])"
    code += "\nassert os.listdir(os.environ['FASTBP_CACHE_DIR']) == []"
    assert not Path(in_a_process(code).strip()).exists()


@pytest.mark.skipif(not (ROOT / "fastbp").is_dir(), reason="the sources are not here")
def test_an_older_fastbp_is_timed_with_the_table_of_today(tmp_path):
    package = Path(fastbp.__file__).parent
    ignored = shutil.ignore_patterns("bench", "__pycache__")
    shutil.copytree(package, tmp_path / "fastbp", ignore=ignored)
    (tmp_path / "fastbp" / "_memory.py").unlink()  # newer than the table, which may not need it
    code = f"""
        import sys, types
        sys.modules["asv_runner"] = types.ModuleType("asv_runner")
        sys.path[:0] = [{str(tmp_path)!r}]
        sys.path.append({str(ROOT)!r})
        from benchmarks.bench_layers import Relu
        import fastbp
        relu = Relu()
        relu.setup("1 x 50 float32")
        relu.time_forward("1 x 50 float32")
        print(fastbp.__file__, sys.modules["fastbp.bench"].__file__, sep="\\n")
    """
    old, table = in_a_process(dedent(code), cwd=tmp_path).split()
    assert Path(old).parents[1] == tmp_path
    assert Path(table).parents[2] == ROOT


def test_the_environments_of_asv_have_what_fastbp_needs():
    text = (ROOT / "asv.conf.json").read_text(encoding="utf-8")
    conf = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (needs,) = re.findall(r"^dependencies = (\[.*\])$", project, re.MULTILINE)
    names = {re.split("[>=]", need)[0] for need in json.loads(needs)}
    assert set(conf["matrix"]["req"]) == names
    assert all(len(versions) == 1 and versions[0] for versions in conf["matrix"]["req"].values())
    assert "--no-deps" in conf["build_command"][0]
