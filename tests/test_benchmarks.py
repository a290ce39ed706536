"""Nothing is timed that is not also checked: the implementations of every case agree."""

import sys
from pathlib import Path

import numpy as np
import pytest

# Appended, so that the installed package and not the folder beside it is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import accuracy, compare
from benchmarks.cases import Case, all_cases

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def assert_agree(case: Case) -> None:
    results = {name: build()() for name, build in case.calls.items()}
    expected = results.pop("reference")
    tolerance = 1e-7 if "numerical" in case.operation else TOLERANCE[case.dtype]
    for result in results.values():
        same(result, expected, tolerance)


def same(result, expected, tolerance):
    if isinstance(expected, dict):
        assert result.keys() == expected.keys()
        for key in expected:
            same(result[key], expected[key], tolerance)
        return
    largest = np.max(np.abs(expected), initial=1e-3)
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_every_implementation_computes_the_same(case):
    assert_agree(case)


def test_a_wrong_implementation_is_noticed():
    case = all_cases()[0]
    calls = dict(case.calls)
    calls["fastbp"] = lambda: lambda: 1.001 * case.calls["fastbp"]()()
    with pytest.raises(AssertionError):
        assert_agree(Case(case.operation, case.shape, case.dtype, calls))


def test_case_names_are_unique():
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)


def test_a_comparison_has_positive_times_and_a_ratio():
    case = next(case for case in all_cases() if case.name == "Relu forward 1x784x50 float64")
    result = compare.compare(case, threads=1, rounds=1)
    assert result.baseline == "reference"
    assert result.baseline_us > 0
    assert result.fastbp_us > 0
    assert result.ratio > 0
    assert result.floor == compare.FLOOR


def test_the_table_takes_its_place_between_the_marks(tmp_path):
    readme = tmp_path / "README.md"
    marks = f"{compare.README_BEGIN}\nold\n{compare.README_END}"
    readme.write_text(f"before\n{marks}\nafter\n", encoding="utf-8")
    row = compare.Result("predict", (10_000, 784, 50, 10), "float64", 1, "reference", 2000, 500, 4)
    compare.write_readme(readme, [row])
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text
    assert "| 2.0 ms | 500.0 µs | **4.0** |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_errors_are_counted_in_units_of_the_exact_result():
    one, below = np.float32(1), np.float32(1 - 2**-24)
    actual = np.array([one, below, np.inf, np.inf, np.nan, np.nan, 0, 2**-149], np.float32)
    exact = np.array([1 + 2**-24, 1, 2**128 - 2**105, np.inf, np.nan, 1, 2**-149, 0.0], float)
    expected = [0.5, 0.5, 2, 0, 0, np.inf, 1, 1]
    np.testing.assert_array_equal(accuracy.ulps(actual, exact), expected)


def test_the_table_of_accuracy(capsys):
    assert accuracy.main(["--samples", "1000"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:] if " at " in line]
    errors = {tuple(row[:3]): float(row[3]) for row in rows}
    for function, bound in {"exp": 1, "log": 1, "sigmoid": 2}.items():
        assert 0.5 <= errors[function, "float32", "fastbp"] <= bound
        assert errors[function, "float32", "NumPy"] >= 0.5
