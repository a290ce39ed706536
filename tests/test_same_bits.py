"""The same bits on 1, 2 and 4 threads, with and without compiled code in the cache.

A short form of ``python tests/same_bits.py``.
"""

import pytest
import same_bits

from fastbp.kernels.jit import JIT_DISABLED

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled, or it takes minutes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Six runs: each number of threads in a process that compiles, and in one that need not."""
    cache = str(tmp_path_factory.mktemp("cache"))
    processes = [
        same_bits.in_new_process(same_bits.THREADS, FASTBP_CACHE_DIR=cache, FASTBP_CACHE="1")
        for _ in range(2)
    ]
    return [run for process in processes for run in process]


def names():
    """Return the results that must not differ, by kind."""
    optimizers = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
    fits = (
        *optimizers,
        "sigmoid",
        "sparse",
        "sparser",
        "few values",
        "bytes",
        "soft targets",
        "wide",
        "deep",
        "no hidden layer",
    )
    return [
        *(f"fit {name}, decay {decay}" for name in fits for decay in (0.0, 0.01)),
        *("gradient", "evaluate", "predict", "bias_backward", "softmax", "softmax_loss"),
        *(f"{question}, zeros skipped" for question in ("gradient", "evaluate", "predict")),
        *("SoftmaxWithLoss labels", "SoftmaxWithLoss probabilities", "Relu", "Sigmoid"),
        *(f"update {name}" for name in optimizers),
    ]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits_in_every_run(name, dtype, runs):
    assert len(runs) == 6
    assert len({run[f"{name}, {dtype}"] for run in runs}) == 1


def test_the_numerical_gradient_has_the_same_bits(runs):
    assert len({run["numerical gradient, float64"] for run in runs}) == 1


def test_nothing_is_left_out(runs):
    expected = {f"{name}, {T}" for name in names() for T in ("float32", "float64")}
    assert {*expected, "numerical gradient, float64"} == runs[0].keys()


def test_different_results_have_different_bits(runs):
    # Else the comparison could not fail.
    fits = [digest for name, digest in runs[0].items() if name.startswith("fit")]
    assert len(set(fits)) == len(fits)
