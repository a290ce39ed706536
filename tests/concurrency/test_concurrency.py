"""Threads, forks and children: the bits of one thread in one process, and no abort or hang."""

import ctypes
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from child import run

from fastbp.kernels.jit import JIT_DISABLED

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled, or it takes minutes")
SCENARIOS = Path(__file__).with_name("scenarios.py")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
METHODS = multiprocessing.get_all_start_methods()


def play(scenario, *arguments, **variables):
    """Play a scenario in a process of its own."""
    return run("-W", "ignore::DeprecationWarning", SCENARIOS, scenario, *arguments, **variables)


# --- threads -------------------------------------------------------------------------------------


def test_eight_threads_train_their_own_networks():
    together, alone = play("own_networks", 1000)
    assert together == alone
    assert len(set(alone)) == 8


def test_eight_threads_call_big_layers():
    together, alone = play("own_layers")
    assert together == alone
    assert len(set(alone)) == 8


def test_eight_threads_ask_one_network():
    together, alone = play("one_network")
    assert together == alone


# --- children ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_children_and_their_children_train_after_a_parallel_run(method):
    bits = play("family", method)
    assert len(bits) == 6
    assert len(set(bits)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_children_and_their_children_call_big_layers_after_a_parallel_run(method):
    bits = play("family", method, "layers")
    assert len(bits) == 6
    assert len(set(bits)) == 1


@pytest.mark.skipif("forkserver" not in METHODS, reason="needs forkserver")
def test_children_of_a_server_that_has_loaded_fastbp_train():
    bits = play("preloaded")
    assert len(bits) == 6
    assert len(set(bits)) == 1


@needs_fork
@pytest.mark.parametrize("what", ["train", "layers"])
def test_a_fork_while_other_threads_work(what):
    children, right, wrong = play("fork_of_a_thread_that_works", what)
    assert children == right
    assert wrong == []


@needs_fork
def test_a_fork_while_another_thread_compiles():
    child, parent = play("fork_while_compiling", FASTBP_CACHE="0")
    assert child == parent == [0.75] * 5


@needs_fork
def test_a_fork_after_somebody_else_has_started_numbas_threads():
    bits = play("threads_of_somebody_else")
    assert len(bits) == 3
    assert len(set(bits)) == 1


# --- threading layers ----------------------------------------------------------------------------

# What Numba may be told, and the layers it may then start: None, where it is not installed.
LAYERS = {
    "default": {"tbb", "omp", "workqueue"},
    "workqueue": {"workqueue"},
    "omp": {"omp", None},
    "tbb": {"tbb", None},
    "forksafe": {"tbb", "omp", "workqueue", None},
    "nonsense": {None},
}


def has_tbb():
    """Whether TBB's library is where Numba looks for it: `pip install tbb` has it."""
    names = {"win32": "tbb12.dll", "darwin": "libtbb.12.dylib"}
    try:
        ctypes.CDLL(names.get(sys.platform, "libtbb.so.12"))
    except OSError:
        return False
    return True


def test_tbb_is_taken_where_it_is():
    if not has_tbb():
        pytest.skip("TBB is absent: its library cannot be loaded")
    (layer, fast), together, alone = play("layer", NUMBA_THREADING_LAYER="tbb")
    assert (layer, fast) == ("tbb", True)
    assert together == alone


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("what", ["train", "layers"])
def test_any_threading_layer_serves_several_threads_at_once(what, name):
    (layer, fast), together, alone = play("layer", what, NUMBA_THREADING_LAYER=name)
    assert layer in LAYERS[name]
    assert fast == (layer in ("tbb", "omp"))
    assert together == alone


@pytest.mark.parametrize("name", ["workqueue", "nonsense"])
@needs_fork
def test_children_train_with_any_threading_layer(name):
    assert len(set(play("family", "fork", NUMBA_THREADING_LAYER=name))) == 1


@pytest.mark.parametrize("limit", [{"OMP_THREAD_LIMIT": 1}, {"OMP_DYNAMIC": "true"}])
def test_one_thread_that_gets_the_work_of_two_does_not_wait_for_itself(limit):
    together, alone = play("own_networks", 30, NUMBA_THREADING_LAYER="omp", **limit)
    assert together == alone


@pytest.mark.parametrize("count", [1, 4])
def test_any_number_of_numbas_threads_gives_the_same_bits(count):
    together, alone = play("own_networks", 30, NUMBA_NUM_THREADS=count)
    assert together == alone
