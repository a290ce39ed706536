"""Fixtures for all tests: the thread counts, real MNIST, and a home folder of the tests' own."""

import os
import signal

import numpy as np
import pytest

import fastbp
from fastbp.dataset import find_mnist
from fastbp.threads import available_cpus

# Threads that wait for one another sleep instead of spinning.  Spinning is quicker by microseconds,
# but where all processors are busy it keeps the other thread from its place for milliseconds: the
# tests on two threads then take four times as long.  Before any of them has started.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts what runs in the background deaf to Ctrl-C, and so would be all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    """Run the test with 1 and with 2 threads."""
    if request.param > available_cpus():
        pytest.skip(f"needs {request.param} CPUs, this process may use {available_cpus()}")
    before = fastbp.get_num_threads()
    fastbp.set_num_threads(request.param)
    yield request.param
    fastbp.set_num_threads(before)


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST: ((x_train, t_train), (x_test, t_test)), float32 rows and labels."""
    folder = find_mnist()
    if folder is None:
        pytest.skip("real MNIST is not here; FASTBP_DATA_DIR names the folder that has its files")
    return fastbp.load_mnist(data_dir=folder)


@pytest.fixture(scope="session")
def digits():
    """The digits inside the package: ((x_train, t_train), (x_test, t_test))."""
    return fastbp.load_digits()


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(0)
