"""What a process may do with threads and children while fastbp trains.

``python scenarios.py NAME ...`` plays one and prints as JSON what the tests compare.  Each is a
process of its own, because the worst that can happen is an abort or a hang.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastbp


def train(seed, threads=2, steps=30, dtype=np.float32):
    """Train a network of its own, and return a digest of all the bits that come out."""
    rng = np.random.default_rng(seed)
    x, t = rng.random((200, 40), np.float32), rng.integers(0, 5, 200)
    network = fastbp.MultiLayerNet(40, [24, 16], 5, dtype=dtype, seed=seed)
    adam = fastbp.Adam()
    options = {"batch_size": 32, "iterations": steps, "seed": seed, "threads": threads}
    history = fastbp.fit(network, x, t, optimizer=adam, progress=False, **options)
    digest = hashlib.sha256(np.array(history.train_loss_list).tobytes())
    for arrays in network.params, adam.m, adam.v:
        for key in sorted(arrays):
            digest.update(arrays[key].tobytes())
    return digest.hexdigest()[:16]


def use_layers(seed, threads=2):
    """Call layers big enough to be divided, and return a digest of all the bits that come out."""
    from fastbp import threads as setting  # here: a fork before it is loaded is a case of its own

    setting._fixed = threads
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((701, 400), np.float32), rng.integers(0, 400, 701)
    digest = hashlib.sha256()
    for _ in range(3):
        loss = fastbp.SoftmaxWithLoss()
        digest.update(np.float64(loss.forward(x, t)).tobytes())
        digest.update(loss.backward().tobytes())
        for layer in fastbp.Relu(), fastbp.Sigmoid():
            digest.update(layer.forward(x).tobytes())
            digest.update(layer.backward(x).tobytes())
    return digest.hexdigest()[:16]


WORK = {"train": train, "layers": use_layers}


# --- threads -------------------------------------------------------------------------------------


def at_once(count, function):
    """Call function(0), function(1), ... in a thread each, all starting together."""
    gate = threading.Barrier(count)

    def call(i):
        gate.wait()
        return function(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def own_networks(steps):
    """Train eight networks in eight threads; then the same one after the other."""
    steps = int(steps)
    together = at_once(8, functools.partial(train, steps=steps))
    return [together, [train(seed, threads=1, steps=steps) for seed in range(8)]]


def own_layers():
    """Call layers in eight threads that start together; then one after the other."""
    together = at_once(8, use_layers)
    return [together, [use_layers(seed, threads=1) for seed in range(8)]]


def one_network():
    """Ask one network eight times at once, for few rows and for many."""
    rng = np.random.default_rng(0)
    x, t = rng.random((600, 40), np.float32), rng.integers(0, 5, 600)
    network = fastbp.MultiLayerNet(40, [24, 16], 5, dtype=np.float32, seed=0)

    def ask(i):
        answers = []
        for _ in range(40):
            answers.append(network.predict(x[i : i + 8]).tobytes())
            answers.append(network.predict(x[i : i + 500]).tobytes())
            answers.append(repr(network.evaluate(x[i:], t[i:])).encode())
            gradient = network.gradient(x[i : i + 100], t[i : i + 100])
            answers += [gradient[key].tobytes() for key in sorted(gradient)]
        return hashlib.sha256(b"".join(answers)).hexdigest()

    return [at_once(8, ask), [ask(i) for i in range(8)]]


# --- children ------------------------------------------------------------------------------------


def in_child(method, function, *arguments):
    """Return what a function returns in a child process."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, function, *arguments))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        child.join()
        raise SystemExit(f"the child ended with {child.exitcode} and no answer") from None
    finally:
        child.join()


def _answer(pipe, function, *arguments):
    pipe.send(function(*arguments))


def family(method, what="train"):
    """Train in parallel, then in a child, in the child's child, and here again."""
    work = WORK[what]
    return [work(0), *in_child(method, _child, method, work), work(0), work(0, threads=1)]


def _child(method, work):
    before = in_child(method, work, 0)  # while this process has not worked yet
    return [before, work(0), in_child(method, work, 0)]


def preloaded():
    """Train in children of a server that has loaded fastbp."""
    multiprocessing.set_forkserver_preload(["fastbp.trainer", "fastbp.engine"])
    return family("forkserver")


def fork_of_a_thread_that_works(what):
    """Fork while other threads train, or call layers."""
    do = WORK[what]
    do(0)  # what a thread imports just now no child could ever import
    stop = threading.Event()
    done = []

    def work(i):
        while not stop.is_set():
            done.append((i, do(i)))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    try:
        children = [in_child("fork", do, seed) for seed in range(6)]
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    right = [do(seed, threads=1) for seed in range(6)]
    return [children, right, [seed for seed, bits in done if bits != right[seed]]]


def fork_while_compiling():
    """Fork while another thread compiles; the child compiles too."""
    from fastbp.kernels import update

    begun = threading.Event()
    compiling = update.adam_update._compiler.compile

    def tell(*arguments):
        begun.set()
        return compiling(*arguments)

    update.adam_update._compiler.compile = tell
    one, zeros = np.ones(5), np.zeros(5)
    arguments = one.copy(), zeros.copy(), zeros.copy(), one, 0.1, 0.9, 0.999, 1e-7
    compiler = threading.Thread(target=update.adam_update, args=arguments)
    compiler.start()
    begun.wait()
    answers = in_child("fork", _compile_another)
    compiler.join()
    return [answers, _compile_another()]


def _compile_another():
    from fastbp.kernels import update

    p = np.ones(5)
    update.sgd_update(p, np.ones(5), 0.25)
    return p.tolist()


def threads_of_somebody_else():
    """Fork after another user of Numba has started its threads, and only then load fastbp."""
    import numba

    @numba.njit(parallel=True)
    def total(n):
        s = 0
        for i in numba.prange(n):
            s += i
        return s

    total(10)
    assert not {"fastbp.engine", "fastbp.threads"} & sys.modules.keys()
    return [in_child("fork", train, 0), train(0), train(0, threads=1)]


# --- threading layers ----------------------------------------------------------------------------


def layer(what="train"):
    """Train in four threads at once, with whatever threads Numba was told to take."""
    from fastbp.kernels import jit

    return [
        [jit.threading_layer(), jit.has_fast_threads()],
        at_once(4, WORK[what]),
        [WORK[what](seed, threads=1) for seed in range(4)],
    ]


def main():
    """Play the scenario the command line names."""
    name, *arguments = sys.argv[1:]
    print(json.dumps(globals()[name](*arguments)))


if __name__ == "__main__":
    os.environ.pop("FASTBP_NUM_THREADS", None)
    main()
