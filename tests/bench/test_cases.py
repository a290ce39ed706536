"""Nothing is timed that is not also checked: the implementations of every case agree."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fastbp import reference
from fastbp.bench import machine, networks, with_jax, with_numpy
from fastbp.bench.agreement import check, prepare, require_agreement
from fastbp.bench.cases import (
    IMPLEMENTATIONS,
    QUICK,
    Case,
    all_cases,
    quick_cases,
)
from fastbp.bench.machine import ON_REQUEST, Disagreement, Unavailable, missing
from fastbp.bench.processes import Peak
from fastbp.threads import available_cpus

TABLE = all_cases((1, 2))
# On two threads the rows that tell most: most of the others do the same there.
SHORT = [c for c in TABLE if c.threads == 1 and not c.long]
SHORT += quick_cases((2,))
HERE = [n for n in IMPLEMENTATIONS if n not in ON_REQUEST and missing(n) is None]


def find(operation, shape, dtype="float32", threads=1):
    (case,) = [
        c
        for c in TABLE
        if (c.operation, c.shape, c.dtype, c.threads) == (operation, shape, dtype, threads)
    ]
    return case


def test_numpy_computes_no_gradient_that_nobody_uses(monkeypatch):
    call = find("gradient", (100, 784, 50, 10)).makers["reference"]()
    rows = []
    real = reference.Affine.backward

    def backward(self, dout):
        rows.append(self.W.shape)
        return real(self, dout)

    monkeypatch.setattr(reference.Affine, "backward", backward)
    call()
    assert rows == [(50, 10)]


def test_arrays_begin_at_cache_lines_each_elsewhere_in_a_page():
    data = with_numpy.layer_data((1000, 50), "float32")
    arrays = [*vars(data).values()]
    assert all(array.ctypes.data % 64 == 0 and array.flags.c_contiguous for array in arrays)
    assert len({arrays[i].ctypes.data % 4096 for i in range(len(with_numpy.PLACES))}) == 5
    found = with_numpy.aligned(np.arange(6.0).reshape(2, 3).T, 2)
    assert found.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_processes_of_others_carry_nothing_of_numba():
    code = "import sys, fastbp.bench.processes; print(*{'numba', 'llvmlite'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_every_implementation_computes_the_same(case):
    if case.threads > available_cpus():
        pytest.skip(f"needs {case.threads} CPUs")
    # Processes start slowly.
    skipped = check(case, ("reference", "fastbp") if case.is_process else HERE)
    # JAX keeps the number of threads it began with; everybody else must be in the comparison.
    assert all("keeps the" in reason for reason in skipped.values()), skipped


BREAKABLE = [
    find("relu backward", (37, 13)),
    find("softmax loss forward", (37, 13), "float64"),
    find("affine backward", (37, 123, 45)),
    find("update Adam", (784, 50)),
    find("gradient", (3, 64, 50, 10), "float64"),
    find("60 steps", (50, 64, 50, 10)),
    find("predict", (37, 123, 45, 7)),
]


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in BREAKABLE for name in case.makers if name in HERE],
    ids=lambda part: getattr(part, "name", part),
)
def test_a_wrong_implementation_is_noticed(case, name):
    def broken():
        call = case.makers[name]()
        return lambda: spoiled(call())

    wrong = replace(case, makers={**case.makers, name: broken})
    with pytest.raises(Disagreement, match="is off by"):
        check(wrong, ("reference", "fastbp", name))


def spoiled(result):
    """Return a result whose first array is wrong by 1 %."""
    if isinstance(result, (tuple, list)):
        return [spoiled(result[0]), *result[1:]]
    return 1.01 * result


def test_another_shape_nan_and_a_missing_reference_are_noticed():
    case = find("relu forward", (37, 13))
    zeros = np.zeros((37, 13))
    require_agreement(case, {"reference": zeros, "fastbp": zeros})
    with pytest.raises(Disagreement, match="shapes"):
        require_agreement(case, {"reference": zeros, "fastbp": zeros.T})
    with pytest.raises(Disagreement, match="off by nan"):
        require_agreement(case, {"reference": zeros, "fastbp": zeros + np.nan})
    with pytest.raises(Disagreement, match="no reference"):
        require_agreement(case, {"fastbp": zeros})


def test_the_result_of_a_process_is_compared_and_not_its_memory():
    case = find("peak memory of an epoch", (100, 784, 50, 10))
    require_agreement(case, {"reference": Peak(2.0, 10**8), "fastbp": Peak(2.0, 10**7)})
    with pytest.raises(Disagreement):
        require_agreement(case, {"reference": Peak(2.0, 10**8), "fastbp": Peak(2.1, 10**8)})


def test_the_broken_cases_are_right_unbroken():
    for case in BREAKABLE:
        assert not check(case, ("reference", "fastbp"))


def test_names_are_unique():
    assert len({case.name for case in TABLE}) == len(TABLE)
    assert find("gradient", (100, 784, 50, 10)).name == (
        "gradient, 100 x 784-50-10, float32, 1 thr"
    )
    assert find("import", (), "").name == "import, 1 thr"


def test_a_case_knows_its_work():
    assert find("relu forward", (1000, 50)).flops == 50_000
    assert find("relu forward", (1000, 50)).bytes == 2 * 4 * 50_000
    affine = find("affine forward", (100, 784, 50), "float64")
    assert affine.flops == 2 * 100 * 784 * 50 + 100 * 50
    assert affine.bytes == 8 * (100 * 784 + 784 * 50 + 50 + 100 * 50)
    gradient = find("gradient", (100, 784, 50, 10))
    assert gradient.flops == pytest.approx(2 * 100 * (2 * 784 * 50 + 3 * 50 * 10))
    assert all(case.flops and case.bytes for case in TABLE if has_work(case))


def has_work(case: Case) -> bool:
    return not case.is_process and not case.operation.startswith(("training to", "numerical"))


def test_every_operation_of_the_book_is_in_the_table():
    operations = {case.operation for case in TABLE}
    for layer in ("relu", "sigmoid", "softmax loss", "affine"):
        assert {f"{layer} forward", f"{layer} backward"} <= operations
    assert {
        "predict", "gradient", "numerical gradient", "training step", "one epoch of 6,000 images",
        "training to 95 %, digits", "import", "first step", "first step, nothing cached",
        "peak memory of an epoch",
    } <= operations  # fmt: skip


def test_the_numerical_gradient_is_beside_backprop_for_batches_of_1_3_and_100():
    with_it = {c.shape[0] for c in TABLE if c.operation == "gradient" and "numerical" in c.makers}
    assert with_it == {1, 3, 100}


def test_every_quick_row_is_in_the_table():
    rows = sum(len(types) for *_, types in QUICK)
    assert len(quick_cases((1,))) == rows
    assert not any(case.long for case in quick_cases((1, 2)))


def test_what_is_not_installed_is_skipped_with_its_name(monkeypatch):
    monkeypatch.setattr(
        machine, "find_spec", lambda package: None if package == "torch" else package
    )
    case = find("relu forward", (37, 13))
    found = prepare(case, ("reference", "fastbp", "torch", "sklearn"))
    assert list(found.calls) == list(found.results) == ["reference", "fastbp"]
    assert found.skipped == {"torch": "torch is not installed"}


def test_an_error_of_a_peer_is_told_and_one_of_ours_is_an_error(monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda package: package)

    def failing():
        raise ValueError("no such luck\nand more")

    case = find("relu forward", (37, 13))
    theirs = replace(case, makers={**case.makers, "sklearn": failing})
    found = prepare(theirs, ("reference", "sklearn"))
    assert (found.skipped, found.failed) == ({}, {"sklearn": "ValueError: no such luck"})
    assert list(found.calls) == ["reference"]
    assert check(theirs, ("reference", "sklearn")) == found.failed
    ours = replace(case, makers={**case.makers, "fastbp": failing})
    with pytest.raises(ValueError, match="no such luck"):
        prepare(ours, ("reference", "fastbp"))


def test_a_training_that_does_not_get_there_is_no_result(monkeypatch):
    case = find("training to 95 %, digits", (50, 64, 50, 10))
    monkeypatch.setattr(networks, "MOST_EPOCHS", 1)
    for ours in ("reference", "fastbp"):
        with pytest.raises(Disagreement, match=f"{ours} does not reach 95% in 1 epochs of digits"):
            prepare(case, (ours,))


def test_a_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda package: package)
    monkeypatch.setattr(machine.shutil, "which", lambda program: None)
    monkeypatch.setattr(machine.os, "name", "posix")
    assert missing("tinygrad") == "it needs the compiler clang"
    assert missing("torch.compile") == "it needs the compiler c++"
    assert missing("torch") is None


def test_jax_keeps_its_threads(monkeypatch):
    monkeypatch.setattr(with_jax, "_threads", 1)
    with pytest.raises(Unavailable, match="keeps the 1 threads"):
        with_jax.jax_with(2)


def test_everybody_is_named_somewhere():
    named = {name for case in TABLE for name in case.makers}
    assert named == set(IMPLEMENTATIONS)
