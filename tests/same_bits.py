"""The same seed gives the same bits, on any number of threads, run after run.

    python tests/same_bits.py [--runs 100]

trains with every optimizer, takes gradients, evaluates and predicts, and calls every kernel that
adds numbers up, with 1, 2 and 4 threads in turn (also on fewer processors), in a new process every
ten runs.  Each run must give the bits of the first.  Products of single layers are not among them:
they are NumPy's, whose BLAS may add in another order on another number of threads.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

THREADS = (1, 2, 4)
RUNS_A_PROCESS = 10


def bits(*values):
    """Return a digest of arrays, numbers and dicts of them."""
    digest = hashlib.sha256()
    for value in values:
        arrays = [value[key] for key in sorted(value)] if isinstance(value, dict) else [value]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def examples(D, C, T, N=300):
    """Return dense inputs, inputs that are mostly zeros, and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D)).astype(T)
    return x, x * (rng.random((N, D)) < 0.1), rng.integers(0, C, N)


def trainings(T, threads):
    """Train every kind of network that the compiled loop divides in a way of its own."""
    from fastbp import Adam, MultiLayerNet, fit, optimizer

    D, C = 130, 7
    dense, sparse, t = examples(D, C, T)
    soft = np.full((len(t), C), 1 / C)
    kinds = {
        **{f"fit {name}": (dense, t, (50,), cls) for name, cls in optimizer.OPTIMIZERS.items()},
        "fit sigmoid": (dense, t, (50, 20), Adam),
        "fit sparse": (sparse, t, (50,), Adam),
        "fit sparser": (sparse * (np.arange(D) % 3 == 0), t, (50,), Adam),
        "fit few values": ((np.rint(np.abs(sparse) * 80) / 255).astype(T), t, (50,), Adam),
        "fit bytes": (sparse.astype(np.uint8), t, (50,), Adam),
        "fit soft targets": (dense, soft, (50,), Adam),
        "fit wide": (dense, t, (700, 300), Adam),
        "fit deep": (dense, t, (33, 48, 17), Adam),
        "fit no hidden layer": (dense, t, (), Adam),
    }
    for name, (x, targets, hidden, cls) in kinds.items():
        for decay in (0.0, 0.01):
            network = MultiLayerNet(
                D, list(hidden), C, activation="sigmoid" if "sigmoid" in name else "relu",
                weight_decay_lambda=decay, dtype=T, seed=0,
            )  # fmt: skip
            rule = cls(lr=0.001)
            history = fit(
                network, x, targets, optimizer=rule, batch_size=70, iterations=12, seed=0,
                validation_data=(dense[:100], t[:100]), progress=False, threads=threads,
            )  # fmt: skip
            state = [getattr(rule, slot) for slot in rule._slots]
            lists = history.train_loss_list, history.test_loss_list, history.train_acc_list
            yield f"{name}, decay {decay}", bits(network.params, *state, *lists)


def questions(T, threads):
    """Ask a network for all that the compiled loop computes outside of ``fit``."""
    from fastbp import MultiLayerNet
    from fastbp import threads as setting

    D, C = 130, 7
    x, _, t = examples(D, C, T, 900)
    network = MultiLayerNet(D, [600, 40], C, weight_decay_lambda=0.01, dtype=T, seed=0)
    before, setting._fixed = setting._fixed, threads  # more than there are CPUs, too
    try:
        loss, gradient = network.loss_and_gradient(x[:200], t[:200])
        yield "gradient", bits(np.float64(loss), gradient)
        yield "evaluate", bits(np.array(network.evaluate(x, t)))
        yield "predict", bits(network.predict(x))
        _, sparse, t = examples(300, C, T, 900)
        network = MultiLayerNet(300, [50, 20], C, weight_decay_lambda=0.01, dtype=T, seed=0)
        loss, gradient = network.loss_and_gradient(sparse[:200], t[:200])
        yield "gradient, zeros skipped", bits(np.float64(loss), gradient)
        yield "evaluate, zeros skipped", bits(np.array(network.evaluate(sparse, t)))
        yield "predict, zeros skipped", bits(network.predict(sparse))
        if T is np.float64:
            small = MultiLayerNet(20, [9, 5], C, dtype=T, seed=0)
            yield "numerical gradient", bits(small.numerical_gradient(x[:5, :20], t[:5]))
    finally:
        setting._fixed = before


def kernels(T, threads):
    """Call every kernel of the layers that adds numbers up, and the optimizers' own updates."""
    from fastbp import functions, layers, optimizer
    from fastbp.kernels.affine import bias_backward

    x, _, t = examples(37, 11, T, 501)
    db = np.empty(37, T)
    bias_backward(db, x)
    yield "bias_backward", bits(db)
    logits = np.ascontiguousarray(x[:, :11])
    rows = functions.softmax(logits.astype(np.float64))
    for name, targets in {"labels": t, "probabilities": rows}.items():
        layer = layers.SoftmaxWithLoss()
        loss = layer.forward(logits, targets)
        yield f"SoftmaxWithLoss {name}", bits(np.float64(loss), layer.backward())
    yield "softmax", bits(functions.softmax(x))
    yield "softmax_loss", bits(np.float64(functions.softmax_loss(logits, t)))
    for activation in layers.Relu(), layers.Sigmoid():
        y = activation.forward(x)
        yield type(activation).__name__, bits(y, activation.backward(x))
    for name, cls in optimizer.OPTIMIZERS.items():
        params, rule = {"W": x.copy()}, cls(lr=0.01)
        for _ in range(5):
            rule.update(params, {"W": x})
        yield f"update {name}", bits(params, *(getattr(rule, slot) for slot in rule._slots))


def run(threads):
    """Return name -> digest of everything, computed on so many threads."""
    return {
        f"{name}, {T.__name__}": digest
        for T in (np.float32, np.float64)
        for part in (trainings, questions, kernels)
        for name, digest in part(T, threads)
    }


def in_new_process(threads, **variables):
    """Return the runs for a list of numbers of threads, from a process of their own."""
    program = [sys.executable, "-W", "ignore", __file__, "--threads", *map(str, threads)]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(max(THREADS)), "PYTHONPATH": root}
    environment.update(variables)
    environment.pop("FASTBP_NUM_THREADS", None)
    done = subprocess.run(
        program, env=environment, capture_output=True, text=True, check=False, timeout=3600
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def differences(runs, progress=None):
    """Return how many results there are, and of which ones the bits differed between the runs."""
    first, different = None, set()
    numbers = [THREADS[i % len(THREADS)] for i in range(runs)]
    for i in range(0, runs, RUNS_A_PROCESS):
        for found in in_new_process(numbers[i : i + RUNS_A_PROCESS]):
            first = first or found
            assert found.keys() == first.keys()
            different |= {name for name in first if found[name] != first[name]}
            if progress is not None:
                progress.update()
    return len(first), different


def main():
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        print(json.dumps([run(n) for n in options.threads]))
        return 0
    from tqdm import tqdm

    with tqdm(total=options.runs, unit="run") as bar:
        count, different = differences(options.runs, bar)
    print(f"{options.runs} runs on {THREADS} threads in turn: {count} results each, "
          f"{len(different)} with other bits than in the first run")  # fmt: skip
    for name in sorted(different):
        print(f"  {name}")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
