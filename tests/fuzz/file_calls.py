"""Generated calls of what reads and writes files, and of what sets up the process."""

import numpy as np

import fastbp

from .arguments import SHAPES, Breaker
from .judge import Refusal, Want
from .model import built


def files(judge, r):
    """A network or an array that goes into a file and comes back."""
    if r.random() < 0.5:
        net, _ = built(r)
        path = judge.folder / "net.safetensors"
        judge.call("save_network", lambda: fastbp.save_network(path, net), [], lambda: None)
        want = {key: Want(p, p.dtype, 0) for key, p in net.params.items()}
        judge.call("load_network", lambda: fastbp.load_network(path)[0].params, [], lambda: want)
        return
    breaker = Breaker(r)
    path = judge.folder / "array.npy"
    x = breaker.array("", "x", breaker.floats(*r.choice([s for s in SHAPES if s])), special=True)
    if x.refusal is not None or not hasattr(x.object, "dtype") or x.object.dtype.metadata:
        return
    np.save(path, np.asarray(x.object))

    def oracle():
        stored = np.asarray(x.object)
        if not stored.size or not np.isfinite(stored).all():
            raise Refusal(fastbp.DatasetError, "array.npy")
        if stored.dtype == np.uint8:
            return Want(stored / 255, np.float32, 1)
        double_ = stored.dtype.kind == "f" and stored.dtype.itemsize == 8
        dtype = np.float64 if double_ else np.float32
        return Want(stored.astype(dtype), dtype, 0)

    judge.call("load_npy", lambda: fastbp.dataset.load_npy(path), [], oracle)


def threads(judge, r):
    """set_num_threads, which is put back."""
    before = fastbp.get_num_threads()
    breaker = Breaker(r)
    most = fastbp.threads.available_cpus()

    def oracle(value):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not 1 <= value <= most:
            raise Refusal(ValueError, "set_num_threads", "n")
        return value

    n = breaker.number("n", r.randrange(1, most + 1), oracle)
    judge.call("set_num_threads", fastbp.set_num_threads, [n], lambda n: None)
    if before <= most:
        fastbp.set_num_threads(before)


CALLS = {files: 1, threads: 0.05}
