import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp.threads import available_cpus, blas_info

CPUS = available_cpus()


@pytest.fixture(autouse=True)
def restored():
    """Put the number of threads back."""
    before = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(before)


def run(code, **variables):
    """Run code in a fresh process with these environment variables; return the process."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(fastbp.__file__).parents[1],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("n", range(1, CPUS + 1))
def test_the_number_that_is_set_is_the_number_that_is_got(n):
    fastbp.set_num_threads(n)
    assert fastbp.get_num_threads() == n


@pytest.mark.parametrize("n", range(1, CPUS + 1))
def test_the_number_is_that_of_numpys_blas(n):
    fastbp.set_num_threads(n)
    assert {pool["num_threads"] for pool in blas_info()} == {n}


def test_there_is_a_cpu_and_no_more_than_the_machine_has():
    assert 1 <= CPUS <= os.cpu_count()


@pytest.mark.parametrize("n", [0, -1, CPUS + 1, 10**9, 1.0, 1.5, True, "1", None, np.nan, [1]])
def test_any_other_number_is_refused(n):
    before = fastbp.get_num_threads()
    with pytest.raises(ValueError, match=f"set_num_threads: n is .*integer from 1 to {CPUS}"):
        fastbp.set_num_threads(n)
    assert fastbp.get_num_threads() == before


def test_the_result_does_not_depend_on_the_number(threads, rng):
    x, W = rng.normal(size=(200, 300)), rng.normal(size=(300, 100))
    layer = fastbp.Affine(W, np.zeros(100))
    np.testing.assert_allclose(layer.forward(x), np.einsum("nd,dh->nh", x, W), rtol=1e-10)


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
def test_the_number_stays_when_numba_brings_a_blas_of_scipys():
    code = "import fastbp; fastbp.set_num_threads(1); fastbp.sigmoid([1.0]); "
    done = run(code + "print(fastbp.get_num_threads())")
    assert done.stdout == "1\n", done.stderr


# --- FASTBP_NUM_THREADS --------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, CPUS + 1))
def test_the_environment_sets_the_number_from_the_start(n):
    done = run("import fastbp; print(fastbp.get_num_threads())", FASTBP_NUM_THREADS=str(n))
    assert done.stdout == f"{n}\n", done.stderr


TRAIN = """
import fastbp
network = fastbp.TwoLayerNet(4, 3, 2)
fastbp.fit(network, [[1.0] * 4], [0], iterations=1)
"""
LAYER = """
import fastbp
fastbp.Affine([[1.0]], [1.0]).forward([[1.0]])
"""


@pytest.mark.skipif(CPUS < 2, reason="needs two CPUs")
@pytest.mark.parametrize("code", [TRAIN, LAYER], ids=["fit", "Affine"])
def test_the_environment_counts_where_nobody_asks_for_the_number(code):
    code += (
        "import threadpoolctl\n"
        "print({pool['num_threads'] for pool in threadpoolctl.threadpool_info()"
        " if pool['user_api'] == 'blas' and 'numpy' in pool['filepath']})"
    )
    done = run(code, FASTBP_NUM_THREADS="1")
    assert done.stdout == "{1}\n", done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "two", " ", "1e0", str(CPUS + 1), "²"])
def test_an_environment_that_is_no_number_is_named(text):
    done = run("import fastbp; fastbp.get_num_threads()", FASTBP_NUM_THREADS=text)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: FASTBP_NUM_THREADS is ")
    assert repr(text) in last or f" {text}," in last
