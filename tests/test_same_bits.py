"""The same bits on 1, 2 and 4 threads: a short form of ``python tests/same_bits.py``."""

import pytest
import same_bits

from fastbp.kernels.jit import JIT_DISABLED

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled, or it takes minutes")


@pytest.fixture(scope="module")
def runs():
    """Six runs in two processes: each number of threads once in both."""
    return [run for _ in range(2) for run in same_bits.in_new_process(same_bits.THREADS)]


def names():
    """Return the results that must not differ, by kind."""
    optimizers = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
    fits = (*optimizers, "sparse", "bytes", "soft targets", "wide", "deep", "no hidden layer")
    return [
        *(f"fit {name}, decay {decay}" for name in fits for decay in (0.0, 0.01)),
        *("gradient", "evaluate", "predict", "bias_backward", "softmax", "softmax_loss"),
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
