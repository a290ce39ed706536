"""The compile policy: what is compiled, where it is kept, and what happens when that place is bad.

Each test runs processes of its own, because a process decides once where its cache is.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest

import fastbp
from fastbp.kernels import jit
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.kernels.update import sgd_update

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
PACKAGE = Path(fastbp.__file__).parent

# Calls one kernel with each type, and prints what the tests ask about.
CALL = """
import json, warnings
import numpy as np

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastbp.kernels.jit import cache_folder
    from fastbp.kernels.update import momentum_update, sgd_update

    results = []
    for T in np.float32, np.float64:
        p = np.ones(5, T)
        sgd_update(p, np.ones(5, T), T(0.25))
        momentum_update(p, np.zeros(5, T), np.ones(5, T), T(0.25), T(0))
        results.extend(p.tolist())
print(json.dumps({
    "results": results,
    "hits": sum(sgd_update.stats.cache_hits.values()),
    "misses": sum(sgd_update.stats.cache_misses.values()),
    "folder": str(cache_folder()),
    "warnings": [(w.category.__name__, str(w.message)) for w in caught],
}))
"""
RIGHT = [0.5] * 10


def python(code, package=PACKAGE, **variables):
    """Run code in a new process and return the JSON it prints."""
    environment = {key: v for key, v in os.environ.items() if not key.startswith("FASTBP_CACHE")}
    environment |= {"PYTHONPATH": str(package.parent), **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=package.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(cache=None, **variables):
    return python(CALL, **({} if cache is None else {"FASTBP_CACHE_DIR": str(cache)}), **variables)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache folder that a process has filled, and what that process said."""
    cache = tmp_path_factory.mktemp("jit") / "cache"
    return cache, call(cache)


@pytest.fixture(scope="module")
def loaded(filled):
    """What a second process says, with the same folder."""
    return call(filled[0])


@pytest.fixture
def copy_of_cache(filled, tmp_path):
    """A cache of the test's own, filled: the base folder and the folder with the files."""
    base = tmp_path / "cache"
    shutil.copytree(filled[0], base)
    (folder,) = base.iterdir()
    return base, folder


# --- where compiled code is kept -----------------------------------------------------------------


def test_the_first_process_compiles(filled):
    _, said = filled
    assert (said["results"], said["hits"], said["misses"]) == (RIGHT, 0, 2)


def test_the_second_process_loads(loaded):
    assert (loaded["results"], loaded["hits"], loaded["misses"]) == (RIGHT, 2, 0)


def test_neither_warns(filled, loaded):
    assert filled[1]["warnings"] == loaded["warnings"] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows: the profile folder is the user's own")
def test_the_folder_is_the_users_alone(filled):
    (folder,) = filled[0].iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_folder_is_named_after_version_and_sources(filled):
    (folder,) = filled[0].iterdir()
    assert str(folder) == filled[1]["folder"]
    assert re.fullmatch(re.escape(fastbp.__version__) + "-[0-9a-f]{16}(-.+)?", folder.name)


FOLDER = (
    "import json; from fastbp.kernels.jit import cache_folder as f; print(json.dumps(str(f())))"
)


@pytest.mark.parametrize(
    ("file", "before", "after", "changes"),
    [
        ("kernels/exp.py", "", "", False),
        ("kernels/exp.py", "1.4426950408889634", "1.4426950408889633", True),
        ("kernels/relu.py", "ReLU", "relu", True),
        ("__init__.py", f'__version__ = "{fastbp.__version__}"', '__version__ = "99.0"', True),
    ],
    ids=["nothing", "a part that kernels inline", "a kernel's comment", "the version"],
)
def test_the_folder_changes_with(file, before, after, changes, filled, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "fastbp", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "fastbp" / file
    text = source.read_text(encoding="utf-8")
    assert before in text
    source.write_text(text.replace(before, after), encoding="utf-8")
    folder = python(FOLDER, package=tmp_path / "fastbp", FASTBP_CACHE_DIR=str(tmp_path / "cache"))
    assert (Path(folder).name != Path(filled[1]["folder"]).name) is changes


def test_code_with_and_without_bounds_checks_is_kept_apart(copy_of_cache):
    # Numba's own cache takes no notice of this setting.
    other = "0" if numba.config.BOUNDSCHECK else "1"
    assert call(copy_of_cache[0], NUMBA_BOUNDSCHECK=other)["hits"] == 0


def test_the_cache_can_be_turned_off(tmp_path):
    said = call(tmp_path / "cache", FASTBP_CACHE="0")
    assert (said["results"], said["hits"], said["warnings"]) == (RIGHT, 0, [])
    assert not (tmp_path / "cache").exists()


# --- bad places ----------------------------------------------------------------------------------


def only_warning(said):
    """Return the text of the one warning there must be."""
    ((category, text),) = said["warnings"]
    assert category == "RuntimeWarning"
    return text


def test_an_unwritable_folder_means_compiling_in_memory_and_one_warning(tmp_path):
    (tmp_path / "file").write_text("a regular file")
    said = call(tmp_path / "file" / "cache")
    assert said["results"] == RIGHT
    text = only_warning(said)
    assert "compiles in memory" in text
    assert "FASTBP_CACHE_DIR" in text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o770, 0o702], ids=oct)
def test_a_folder_that_others_may_write_to_is_refused(mode, copy_of_cache):
    base, folder = copy_of_cache
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.chmod(mode)
    said = call(base)
    assert (said["results"], said["hits"]) == (RIGHT, 0)
    assert "can be written by somebody else" in only_warning(said)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_folder_of_another_user_is_refused(copy_of_cache):
    base, folder = copy_of_cache
    os.chown(folder, 12345, -1)
    said = call(base)
    assert (said["results"], said["hits"]) == (RIGHT, 0)
    assert "can be written by somebody else" in only_warning(said)


def flip(data, bit):
    """Return data with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


DAMAGE = {
    "nothing": lambda data: b"",
    "half of it": lambda data: data[: len(data) // 2],
    "a bit in the middle": lambda data: flip(data, 4 * len(data)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_file_costs_time_and_not_the_result(damage, copy_of_cache):
    base, folder = copy_of_cache
    files = list(folder.glob("*.nbc"))
    assert files
    for file in files:
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    said = call(base)
    assert (said["results"], said["hits"], said["warnings"]) == (RIGHT, 0, [])
    assert call(base)["hits"] == 2  # and the damage is repaired


def test_the_code_of_another_type_is_refused(copy_of_cache):
    # As an index that two processes write at once would have it.
    base, folder = copy_of_cache
    one, other = sorted(folder.glob("update.sgd_update*.nbc"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    said = call(base)
    assert (said["results"], said["hits"]) == (RIGHT, 0)


# Damages a file in many ways and prints those after which it is still loaded.
BREAK = """
import json, random
import numba
from fastbp.kernels.update import sgd_update as kernel

signature = numba.float32[::1], numba.float32[::1], numba.float32
kernel.compile(signature)
cache, context = kernel._cache, kernel.targetctx
_, path = cache._name(signature, context.codegen())
content = path.read_bytes()
rng = random.Random(0)

def flipped(bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)

damage = {
    "a byte less": content[:-1],
    "a byte more": content + bytes(1),
    "noise": rng.randbytes(len(content)),
    "another format": content.replace(b"code 1", b"code 0"),
    "the code alone": content[content.index(bytes([128, 4])):],
}
bits = [*range(0, 8 * 64, 7), *(rng.randrange(8 * len(content)) for _ in range(500))]
damage |= {f"bit {bit}": flipped(bit) for bit in bits}
believed = []
for what, bad in damage.items():
    assert bad != content
    path.write_bytes(bad)
    if cache.load_overload(signature, context) is not None:
        believed.append(what)
path.write_bytes(content)
print(json.dumps([believed, cache.load_overload(signature, context) is not None]))
"""


def test_a_file_that_is_not_what_was_saved_is_never_loaded(copy_of_cache):
    believed, whole = python(BREAK, FASTBP_CACHE_DIR=str(copy_of_cache[0]))
    assert believed == []
    assert whole


def test_numba_can_have_a_kernels_files_deleted(copy_of_cache):
    code = (
        "import json; from fastbp.kernels.update import sgd_update as kernel; "
        "kernel._cache.flush(); print(json.dumps(0))"
    )
    base, folder = copy_of_cache
    python(code, FASTBP_CACHE_DIR=str(base))
    assert not list(folder.glob("update.sgd_update*"))
    assert list(folder.glob("update.momentum_update*"))


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_cache_means_compiling_in_memory_and_one_warning(tmp_path):
    said = python(LIMITED + CALL, FASTBP_CACHE_DIR=str(tmp_path / "cache"))
    assert said["results"] == RIGHT
    assert "compiles in memory" in only_warning(said)
    (folder,) = (tmp_path / "cache").iterdir()
    assert list(folder.iterdir()) == []  # nor what was begun


def test_without_threads_everything_else_is_compiled():
    # Numba finds no such threads and would refuse to compile a parallel kernel.
    code = IMPORT_ALL + "print(json.dumps([list(jit.compile_all()), jit.count_all()]))"
    ready, count = python(code, NUMBA_THREADING_LAYER="nonsense", **own_cache())
    assert len(ready) == count
    assert "_run float32" in ready


def test_ctrl_c_leaves_no_lock_behind(monkeypatch):
    lock, free = jit.global_compiler_lock, []
    array = np.zeros(3)

    class Lock:
        def __enter__(self):
            lock.acquire()
            raise KeyboardInterrupt  # before the block begins

        def __exit__(self, *exception):
            raise AssertionError("there is no block")

        def __getattr__(self, name):
            return getattr(lock, name)

    monkeypatch.setattr(jit, "global_compiler_lock", Lock())
    with pytest.raises(KeyboardInterrupt):
        jit.address(sgd_update, array, array, 0.1)
    monkeypatch.undo()

    def others():
        free.append(lock._lock.acquire(blocking=False))
        if free[0]:
            lock._lock.release()

    thread = threading.Thread(target=others)
    thread.start()
    thread.join()
    if not free[0]:
        lock.release()
    assert free == [True]


def test_the_users_own_lifted_code_still_compiles():
    # fastbp hears of all that Numba compiles; a loop or a block of a function has no cache.
    def with_a_loop(n):
        object()  # nothing Numba knows: only the loop is compiled
        total = 0
        for i in range(n):
            total += i
        return total

    def with_a_block(x):
        with numba.objmode(y="float64"):
            y = float(str(x))
        return 2 * y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Numba's, about the rest
        assert numba.jit(with_a_loop, forceobj=True)(5) == 10
    assert numba.njit(with_a_block)(1.5) == 3.0


# --- signatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["().__class__", "T + T", "lambda: T", "[T]", "T[1:2]"])
def test_a_signature_names_types_and_nothing_else(text):
    node = ast.parse(text, mode="eval").body
    with pytest.raises(ValueError, match="a signature cannot have"):
        jit._types(node, {"T": numba.types.float32})


def test_a_signature_stands_for_its_types():
    node = ast.parse("(T[:, ::1], int64)", mode="eval").body
    names = {"T": numba.types.float32, "int64": numba.types.int64}
    assert jit._types(node, names) == (numba.types.float32[:, ::1], numba.types.int64)


# --- what is compiled ----------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, json, pkgutil
import numba
import numpy as np
import fastbp.kernels
from fastbp.kernels import jit

for module in pkgutil.iter_modules(fastbp.kernels.__path__):
    importlib.import_module(f"fastbp.kernels.{module.name}")


def declared(template, tuples):
    # The signatures that a kernel's template stands for.
    named = {t.__name__: lambda *fields, t=t: numba.types.NamedTuple(fields, t) for t in tuples}
    names = [{**vars(numba.types), **named, "T": T} for T in (numba.float32, numba.float64)]
    return sorted({str(eval(f"({template},)", {}, n)) for n in names})


def compiled():
    # For each kernel its declared signatures, and those it has been compiled for.
    return {
        # One function may be two kernels, a serial and a parallel one.
        kernel.__name__ + " parallel" * kernel.targetoptions["parallel"]: [
            declared(template, tuples), sorted(str(s) for s in kernel.signatures)
        ]
        for kernel, template, tuples in jit.KERNELS
    }
"""

COMPILE_ALL = (
    IMPORT_ALL
    + """
ready = list(jit.compile_all())
print(json.dumps({"ready": ready, "compiled": compiled()}))
"""
)

# Every layer, function and optimizer, with all the forms of array that a user may hold.
ODD_CALLS = (
    IMPORT_ALL
    + """
import sys, warnings
import scipy.sparse
sys.path.insert(0, TESTS)
from odd_arrays import LAYOUTS, MATRIX_LAYOUTS
from fastbp import functions, layers, optimizer, network, parallel
from fastbp.kernels import relu

TYPES = "f2", "f4", "f8", ">f4", ">f8", "i1", "u8", ">i2", "?"
x = np.random.default_rng(0).uniform(0, 3, (4, 6))
labels = np.array([0, 1, 2, 0])
arrays = [x.astype(t) for t in TYPES]
arrays += [make(x.astype(T)) for make in MATRIX_LAYOUTS.values() for T in (np.float32, np.float64)]
arrays += [x[0], np.float32(2), 3, True, np.zeros((0, 6)), np.zeros((2, 0, 3)), x.reshape(2, 2, 6)]

for a in arrays:
    for name in "sigmoid", "sigmoid_grad", "relu", "relu_grad", "step_function":
        getattr(functions, name)(a)
    for layer in layers.Relu(), layers.Sigmoid():
        layer.backward(layer.forward(a))
        layer.backward(np.zeros(np.shape(a), np.float16))
for a in arrays[: -7]:
    functions.softmax(a)
    for T in np.float32, np.float64:
        affine = layers.Affine(np.ones((6, 3), T), np.zeros(3, np.float64))
        out = affine.forward(a)
        affine.backward(np.asfortranarray(out))
    for t in TYPES[5:8]:
        loss = layers.SoftmaxWithLoss()
        loss.forward(a, labels.astype(t))
        for dout in 1, 2.0, np.float32(3), np.float64(3), np.int8(1), True:
            loss.backward(dout)
    for T in TYPES:
        loss.forward(a, np.eye(6, dtype=T)[labels])
        loss.backward(np.float32(2))
    for make in MATRIX_LAYOUTS.values():
        loss.forward(a, make(np.full((4, 6), 1 / 6, np.float32)))
        loss.backward(np.float16(2))
for make in LAYOUTS.values():
    layers.SoftmaxWithLoss().forward(x, make(labels))
    layers.Affine(make(x), make(x[0])).forward(np.ones((2, 4)))
    for cls in optimizer.OPTIMIZERS.values():
        for T in np.float32, np.float64:
            y = x.astype(T)
            params = {"whole": y, "view": x.astype(T)[:, ::2], "F": np.asfortranarray(y)}
            cls(lr=0.1).update(params, {k: make(p.copy()) for k, p in params.items()})
for T in np.float32, np.float64:
    net = network.TwoLayerNet(6, 5, 3, dtype=T, seed=0)
    net.gradient(x, labels)
    net.accuracy(x, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float32 is noise, and says so
        net.numerical_gradient(x, labels)
    for inputs in x, x.astype("u1"):
        for targets in labels, np.eye(3)[labels]:
            for n in 1, 2:
                fastbp.fit(net, inputs, targets, epochs=2, batch_size=2, progress=False, threads=n)
    for inputs in np.eye(6, dtype=T), scipy.sparse.csr_matrix(np.eye(6, dtype=T)):
        fastbp.fit(net, inputs, np.arange(6) % 3, epochs=2, batch_size=2, progress=False)
        fastbp.fit(net, inputs[:6], np.arange(6) % 3, optimizer=optimizer.Adam(), epochs=1)
    many = np.arange(300) % 4
    net.gradient(x[many], labels[many])
    net.predict(x[many])
    network.TwoLayerNet(256, 32, 4, dtype=T, seed=0).gradient(np.eye(256, dtype=T)[many], many)
    out, mask, y = np.empty((4, 6), T), np.empty((1, 1), np.int64), x.astype(T)
    parallel._on_threads(jit.MAX_THREADS, relu.relu_forward, (out, mask, y), 24, None, None)
    assert (out == y).all()
print(json.dumps(compiled()))
"""
)


@pytest.fixture(scope="module")
def everything():
    """What compile_all does, with the cache the other tests use."""
    return python(COMPILE_ALL, **own_cache())


def own_cache():
    """Return the settings of this process' cache."""
    return {key: v for key, v in os.environ.items() if key.startswith("FASTBP_CACHE")}


def test_compile_all_compiles_the_declared_signatures_and_no_others(everything):
    for name, (declared, signatures) in everything["compiled"].items():
        assert signatures == declared, name


def test_compile_all_names_each_kernel_with_both_types(everything):
    kernels = [name.removesuffix(" parallel") for name in everything["compiled"]]
    names = [f"{name} {T}" for name in kernels for T in ("float32", "float64")]
    # Of integers, or of addresses: the same for both types.
    for name in "first_outside", "count_segments", "run_slices":
        names.remove(f"{name} float32")
    assert sorted(everything["ready"]) == sorted(names)


def test_nothing_but_the_declared_signatures_is_ever_compiled():
    code = ODD_CALLS.replace("TESTS", repr(str(Path(__file__).parents[1])))
    for name, (declared, signatures) in python(code, **own_cache()).items():
        assert signatures, f"{name} was not called"
        assert set(signatures) <= set(declared), name


ON_SPARSE_INPUTS = {"_operate_codes", "_operate_values", "_operate_once"}

# What a first step compiles: code handed to the engine that makes machine code (of a part, of a
# kernel), the kernels, and the parts of the work on sparse inputs.
FIRST_STEP = """
import json, sys
import numpy as np
import fastbp

x = np.random.default_rng(0).random((40, 100)) + 0.01
x *= x > {least}
fastbp.fit(fastbp.TwoLayerNet(100, 50, 10), x, np.arange(40) % 10, iterations=1, progress=False)

from fastbp.kernels import backward, jit, sparse_layer, sparse_once, step

engine = jit.cpu_target.target_context.codegen()._engine
emitted = [
    code.library._final_module in engine._ee._modules
    for compiled in (backward.update, backward.differentiate, step.region)
    for code in compiled.overloads.values()
]
kernels = [k.__name__ for k, *_ in jit.KERNELS if k.signatures]
parts = [
    name
    for module in (sparse_layer, sparse_once)
    for name, f in vars(module).items()
    if getattr(f, "signatures", None) and f.py_func.__module__ == module.__name__
]
print(json.dumps([emitted, kernels, parts]))
"""


@pytest.fixture(scope="module")
def dense_step():
    """What the first step of a training with few zeros compiles, where nothing is cached."""
    return python(FIRST_STEP.replace("{least}", "0"), FASTBP_CACHE="0")


def test_kernels_become_machine_code_and_parts_by_themselves_do_not(dense_step):
    emitted, _, _ = dense_step
    assert emitted == [False, False, True]


def test_a_first_step_does_not_compile_what_only_others_need(dense_step):
    _, kernels, parts = dense_step
    assert "_region" in kernels
    assert {*ON_SPARSE_INPUTS, "_apply_rule", "_exchange"}.isdisjoint(kernels)
    assert parts == []


# Whether garbage is looked for while a kernel is compiled, while a user's function is, and after.
COLLECTED = """
import gc, json
import numba
from numba.core import event
from fastbp.kernels import jit

class Listener(event.Listener):
    def on_start(self, event):
        seen.append(gc.isenabled())
    def on_end(self, event):
        pass

event.register("numba:compile", Listener())

@jit.part
def half(x):
    return x / 2

def quarter(x):
    return half(half(x))

found = []
for enabled in (True, False):
    gc.enable() if enabled else gc.disable()
    for compiled in (jit.kernel("float64")(quarter), numba.njit(lambda x: x)):
        seen = []
        compiled(1.0)
        found.append([seen, gc.isenabled()])
print(json.dumps(found))
"""


def test_garbage_is_not_looked_for_while_a_kernel_is_compiled(tmp_path):
    # A kernel is what stands in the package's folder: as if this script did.
    script = "__name__ = 'fastbp.kernels.other'\n" + COLLECTED
    for where in {"FASTBP_CACHE_DIR": str(tmp_path)}, {"FASTBP_CACHE": "0"}:
        kernel, user, kernel_while_off, user_while_off = python(script, **where)
        assert kernel == [[True, False], True]  # the kernel is not begun yet, the part is within it
        assert user == [[True], True]
        assert not any(kernel_while_off[0])
        assert not kernel_while_off[1]
        assert user_while_off == [[False], False]


# A loop that chooses between arrays: what Numba would count references in.
COUNTED = """
import json
import numba
import numpy as np
from fastbp.kernels import jit

def choose(a, b):
    for i in range(a.size):
        c = a if i % 3 else b
        if b[i] > 0:
            c = b
        c[i] = i

@jit.part
def chosen(a, b):
    choose_too(a, b)

choose_too = jit.part(choose)

def both(a, b):
    chosen(a, b)

kernels = [jit.kernel("T[::1], T[::1]", by_address=b)(both) for b in (False, True)]
counts = []
for compiled in (numba.njit(choose), *kernels):
    compiled.compile((numba.float32[::1],) * 2)
    counts += ["NRT_incref" in text for text in compiled.inspect_asm().values()]
print(json.dumps(counts))
"""


def test_nobody_counts_references_to_arrays():
    assert python(COUNTED, FASTBP_CACHE="0") == [True, False, False]


def test_sparse_inputs_compile_the_work_on_them():
    _, kernels, parts = python(FIRST_STEP.replace("{least}", "0.9"), FASTBP_CACHE="0")
    assert "_region" in kernels
    assert ON_SPARSE_INPUTS & set(kernels) == {"_operate_values"}
    assert "update_sparse" in parts


# The kernels that a process has compiled when sparse inputs were used for a single thing.
SINGLE_CALL = """
import json
import numpy as np
import fastbp
from fastbp.kernels import jit

x, t = np.random.default_rng(0).random((300, 300)), np.arange(300) % 10
x *= x > 0.9
network = fastbp.TwoLayerNet(300, 50, 10)
{call}
kernels = [k.__name__ for k, *_ in jit.KERNELS if k.signatures]
print(json.dumps(kernels))
"""


@pytest.mark.parametrize(
    ("call", "kernels"),
    [
        ("network.predict(x)", {"_operate_once"}),
        ("network.accuracy(x, t)", {"_operate_once"}),
        ("network.gradient(x, t)", {"_operate_once", "_operate_values"}),
        (
            "fastbp.fit(network, np.round(x * 9), t, iterations=1, progress=False)",
            {"_operate_codes"},
        ),
    ],
)
def test_sparse_inputs_compile_what_is_done_with_them(call, kernels):
    compiled = python(SINGLE_CALL.replace("{call}", call), FASTBP_CACHE="0")
    assert ON_SPARSE_INPUTS & set(compiled) == kernels


# A part reads behind the end of an array, in a process that checks bounds.
OUT_OF_BOUNDS = """
import json
import numpy as np
from fastbp.kernels.jit import kernel, part

@part
def element(array, i):
    return array[i]

@kernel("T[::1], int64")
def element_of(array, i):
    return element(array, i)

said = [element_of(np.ones(3), 2)]
try:
    element_of(np.ones(3), 3)
except IndexError as error:
    said.append(str(error))
print(json.dumps(said))
"""


def test_an_error_within_a_part_comes_out_of_the_kernel():
    said = python(OUT_OF_BOUNDS, NUMBA_BOUNDSCHECK="1", **own_cache())
    assert said == [1.0, "index is out of bounds"]


# --- free threading ------------------------------------------------------------------------------

WITHOUT_GIL = """
import sys, warnings
if sys.argv[1] != "old":
    sys._is_gil_enabled = lambda: sys.argv[1] == "on"
elif hasattr(sys, "_is_gil_enabled"):
    del sys._is_gil_enabled
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastbp.kernels import jit
found = [f"{w.category.__name__}: {w.message}" for w in caught]
print(jit.has_gil(), *(text for text in found if "interpreter lock" in text), sep="\\n")
"""


@pytest.mark.parametrize("lock", ["on", "off", "old"])
def test_a_python_without_its_lock_is_said_to_be_untested_and_others_are_not(lock):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GIL, lock],
        cwd=Path(fastbp.__file__).parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    has_gil, *warned = done.stdout.splitlines()
    assert has_gil == str(lock != "off")
    if lock == "off":
        (warning,) = warned
        assert "RuntimeWarning" in warning
        assert "not been tested" in warning
        assert "PYTHON_GIL=1" in warning
    else:
        assert warned == []
