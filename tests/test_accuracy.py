"""docs/accuracy.md: what it promises, what was measured, and that it is so.

The functions of one number have more tests in ``tests/kernels/test_exp.py``.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from fastbp.kernels.jit import target_features

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import accuracy, accuracy_page
from benchmarks.accuracy_peers import IMPLEMENTATIONS, Fastbp, Numpy
from benchmarks.ulp import Worst, by_mpmath, samples, two_parts, ulps

ROOT = Path(__file__).resolve().parent.parent
RECORD = json.loads((ROOT / "docs" / "accuracy.json").read_text(encoding="utf-8"))
RESULTS = RECORD["results"]

features = target_features()
# Of other processors than x86's, all that Numba compiles for have a fused multiply-add.
HAS_FMA = not any(name.startswith("sse") for name in features) or "fma" in features
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="the figures are of a fused multiply-add")
needs_wider = pytest.mark.skipif(not accuracy.HAS_WIDER, reason="no type wider than float64 here")
by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(scope="module")
def ours():
    return {"fastbp": Fastbp()}


# --- the page ------------------------------------------------------------------------------------


def test_the_page_is_what_was_measured():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert text == accuracy_page.page(RECORD)


def test_the_page_says_how_when_and_where_it_was_measured():
    text = accuracy_page.page(RECORD)
    about = RECORD["machine"]
    for part in (RECORD["command"], RECORD["date"], about["processor"], f"NumPy {about['numpy']}"):
        assert part in text
    assert "--all" in RECORD["command"]


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_everybody_was_measured_alike(name):
    numbers = [
        (r["function"], r["dtype"], r["by"]) for r in RESULTS if r.get("implementation") == name
        and r["kind"] == "number"
    ]  # fmt: skip
    kinds = [("float32", "wider"), ("float64", "wider"), ("float64", "mpmath")]
    assert sorted(numbers) == sorted((f, *kind) for f in accuracy.CASES for kind in kinds)
    rows = {
        (r["dtype"], r["spread"])
        for r in RESULTS
        if r["kind"] == "rows" and r["implementation"] == name
    }
    assert rows == {(d, s) for d in ("float32", "float64") for s in accuracy.SPREADS}
    gradients = [r for r in RESULTS if r["kind"] == "gradients"]
    assert len(gradients) == 2 * len(accuracy.NETWORKS) + len(accuracy.SMALL)
    assert all(name in r["errors"] for r in gradients)


def test_functions_of_float32_were_measured_on_every_number():
    samples = {r["samples"] for r in RESULTS if r["kind"] == "number" and r["dtype"] == "float32"}
    assert samples == {None}


def test_every_promise_is_kept():
    missed = [
        (promise, found)
        for promise, found in zip(
            accuracy_page.PROMISES, accuracy_page.figures(RECORD), strict=True
        )
        if not 0 < found <= promise[-1]
    ]
    assert missed == []


def test_a_missed_promise_is_said():
    worse = json.loads(json.dumps(RECORD))
    for result in worse["results"]:
        if result.get("function") == "exp" and result["dtype"] == "float32":
            result["normal"][0] = 1.0001
    text = accuracy_page.page(worse)
    assert "| exp | float32 | ULP | 1.0 | 1.001 | **missed** |" in text
    assert text.count("**missed**") == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.9570001, "0.958"), (0.5, "0.500"), (8382632.1, "8.4e+06"), (math.inf, "infinite")],
)
def test_errors_are_rounded_upwards(number, text):
    assert accuracy_page.upwards(number) == text


# --- that it is so -------------------------------------------------------------------------------


def recorded(function, dtype):
    """Return fastbp's largest recorded errors of normal and of subnormal results."""
    chosen = [
        r
        for r in RESULTS
        if r.get("implementation") == "fastbp"
        and (r.get("function"), r["dtype"]) == (function, dtype)
    ]
    return [max((r[k][0] for r in chosen if r[k]), default=0) for k in ("normal", "subnormal")]


@needs_fma
@pytest.mark.parametrize("function", accuracy.CASES)
def test_a_million_float32_stay_below_the_largest_errors_of_all(function, ours):
    x = np.random.default_rng(5).integers(2**32, size=10**6, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        worst = Worst()
        worst.add(
            x,
            getattr(ours["fastbp"], function)(x),
            *two_parts(getattr(Numpy(), function)(x.astype(np.float64))),
        )
    for found, largest in zip((worst.normal, worst.subnormal), recorded(function, "float32")):  # noqa: B905
        if found is not None:
            assert 0.5 * largest <= found[0] <= largest


@needs_fma
@needs_wider
@pytest.mark.parametrize("function", accuracy.CASES)
def test_a_million_float64_stay_near_the_largest_errors_seen(function, ours):
    count = 10**6 // len(accuracy.CASES[function].ranges["float64"])
    worst = accuracy.measure(function, "float64", count, ours)["fastbp"]
    normal, subnormal = recorded(function, "float64")
    # More may be found than in the samples of the record, but not much more.
    assert 0.8 * normal <= worst.normal[0] <= normal + 0.05
    assert (worst.subnormal or (0.0,))[0] <= subnormal + 0.05


@needs_wider
@pytest.mark.parametrize("spread", accuracy.SPREADS)
@by_dtype
def test_rows_of_log_softmax(dtype, spread, ours):
    found = accuracy.measure_rows(dtype, spread, 1000, ours)["fastbp"]
    assert 0.1 < found["row"] <= 2
    (line,) = (
        r
        for r in RESULTS
        if r.get("implementation") == "fastbp"
        and (r["kind"], r["dtype"], r.get("spread")) == ("rows", dtype, spread)
    )
    # Sums differ in their last bits with the width of the vector registers.
    for what in ("softmax", "row", "loss"):
        assert found[what] <= 1.5 * line[what] + 0.5


@needs_wider
def test_gradients_against_a_wider_type(ours):
    errors = dict(accuracy.measure_gradients("float64", ours))
    assert len(errors) == len(accuracy.NETWORKS)
    assert all(0 < error["fastbp"] <= 1e-12 for error in errors.values())


def test_gradients_against_central_differences(ours):
    errors = dict(accuracy.measure_differences(ours))
    assert len(errors) == len(accuracy.SMALL)
    assert all(0 < error["fastbp"] <= 1e-7 for error in errors.values())


def test_a_gradient_a_little_wrong_is_seen(ours):
    class Wrong(Numpy):
        def gradients(self, params, x, t, activation):
            return {
                k: g * (1 + 1e-6) for k, g in super().gradients(params, x, t, activation).items()
            }

    for _, errors in accuracy.measure_differences({"wrong": Wrong()}):
        assert errors["wrong"] > 1e-7


# --- how it is measured --------------------------------------------------------------------------


def test_errors_are_counted_in_units_of_the_exact_result():
    one, below = np.float32(1), np.float32(1 - 2**-24)
    actual = np.array([one, below, np.inf, np.inf, np.nan, np.nan, 0, 2**-149], np.float32)
    exact = np.array([1 + 2**-24, 1, 2**128 - 2**105, np.inf, np.nan, 1, 2**-149, 0.0], float)
    expected = [0.5, 0.5, 2, 0, 0, np.inf, 1, 1]
    np.testing.assert_array_equal(ulps(actual, exact), expected)


@needs_wider
def test_errors_of_float64_are_counted_in_80_bits():
    one = np.longdouble(1)
    tiny = np.ldexp(one, -1074)
    actual = np.array([1, 1, 1, np.finfo(float).max, 1e308, 0, 2.0**-1074, -3.0])
    exact = [one + 2.0**-54, one - 2.0**-54, one - 2.0**-60, np.ldexp(one, 1024)]
    exact = np.array([*exact, one * 1e308, tiny / 4, tiny / 4, -3 * one - 2.0**-53])
    expected = [0.25, 0.5, 2.0**-7, 1, 0, 0.25, 0.75, 0.25]
    np.testing.assert_array_equal(ulps(actual, exact), expected)


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_error_is_that_of_one_of_the_elements(seed):
    random = np.random.default_rng(seed)
    actual = random.integers(2**32, size=3000, dtype=np.uint32).view(np.float32)
    wrong = 2.0**-23 * random.uniform(-2, 2, 3000) * random.choice([0, 1, 1e6], 3000)
    with np.errstate(all="ignore"):
        exact = actual.astype(float) * (1 + wrong)
    exact[: 10 * (seed % 2)] = [np.nan, np.inf, -np.inf, 0, 1] * (2 * (seed % 2))
    errors = ulps(actual, exact)
    subnormal = (np.abs(exact) < 2.0**-126) & (exact != 0)
    worst = Worst()
    worst.add(actual, actual, exact, np.zeros(3000))
    assert worst.normal[0] == errors[~subnormal].max()
    assert worst.subnormal[0] == errors[subnormal].max()
    (at,) = np.nonzero(actual == np.float32(worst.subnormal[1]))
    assert worst.subnormal[0] in errors[at]


@needs_wider
@pytest.mark.parametrize("function", accuracy.CASES)
def test_both_sources_of_exact_values_agree(function):
    case = accuracy.CASES[function]
    for x in samples(case.ranges["float64"], "float64", 200, case.even_exponents):
        exact = getattr(Numpy(), function)(x.astype(np.longdouble))
        high_part, low_part = by_mpmath(case.exactly, x)
        other_high, other_low = two_parts(exact)
        # Halfway between two float64 one source may take the upper and the other the lower.
        apart = (high_part - other_high) / np.spacing(np.abs(other_high)) + low_part - other_low
        assert np.abs(apart).max() < 2.0**-8


def test_the_command(capsys, tmp_path):
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    command = ["--samples", "1000", "--rows", "100", "--json", str(kept)]
    assert accuracy.main([*command, "--page", str(page)]) == 0
    record = json.loads(kept.read_text(encoding="utf-8"))
    assert record["command"].startswith("python -m benchmarks.accuracy --samples 1000 ")
    assert len(capsys.readouterr().out.splitlines()) >= len(record["results"])
    again = tmp_path / "again.md"
    assert accuracy.main(["--from", str(kept), "--page", str(again)]) == 0
    assert again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_a_part_is_measured_anew(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "installed", lambda: {"fastbp": Fastbp(), "NumPy": Numpy()})
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    chosen = ["--only", "exp", "--dtype", "float32"]
    assert accuracy.main([*chosen, "--samples", "1000", "--json", str(first)]) == 0
    again = ["--samples", "2000", "--keep", str(first), "--json", str(second)]
    assert accuracy.main([*chosen, *again]) == 0
    assert accuracy.main(["--only", "log", "--dtype", "float32", *again]) == 0
    results = json.loads(second.read_text(encoding="utf-8"))["results"]
    assert [(r["function"], r["samples"]) for r in results] == [("exp", 1000)] * 2 + [
        ("log", 2000)
    ] * 2
    other = json.loads(first.read_text(encoding="utf-8"))
    other["machine"]["numpy"] = "1.0"
    first.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        accuracy.main([*chosen, *again])
    assert ended.value.code == 2
    assert "another machine" in capsys.readouterr().err


def test_what_is_not_installed_is_said(monkeypatch, capsys):
    monkeypatch.setattr(
        "benchmarks.accuracy_peers.find_spec", lambda name: name if name == "numpy" else None
    )
    assert list(accuracy.installed()) == ["NumPy"]
    said = capsys.readouterr().out
    assert "PyTorch is left out: torch is not installed" in said
    assert "JAX is left out: jax is not installed" in said
