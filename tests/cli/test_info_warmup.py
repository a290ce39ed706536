import importlib
import pkgutil
import platform
import re
from importlib.metadata import PackageNotFoundError

import numba
import numpy as np
import pytest

import fastbp
import fastbp.kernels
from fastbp.cli import info
from fastbp.dataset import mnist
from fastbp.kernels import jit
from fastbp.threads import available_cpus

needs_compiler = pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")


def rows(out):
    """Return what info prints as a dict."""
    return dict(re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines())


# -- info -----------------------------------------------------------------------------------------


def test_versions(run):
    code, out, err = run("info")
    assert (code, err) == (0, "")
    found = rows(out)
    assert found["fastbp"] == fastbp.__version__
    assert found["Python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["numba"] == numba.__version__


def test_package_that_is_not_installed(run, monkeypatch):
    real = info.version

    def version(package):
        if package == "matplotlib":
            raise PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(info, "version", version)
    found = rows(run("info").out)
    assert found["matplotlib"] == "not installed"
    assert found["numpy"] == np.__version__


def test_machine(run):
    found = rows(run("info").out)
    assert found["system"] == platform.platform()
    assert platform.machine() in found["processor"]
    assert re.fullmatch(r"\d+ bits|unknown", found["vector width"])


@pytest.mark.parametrize(
    ("features", "width"),
    [
        ({"sse2": True, "avx": True, "avx2": True, "avx512f": True}, "512 bits"),
        ({"sse2": True, "avx": True, "avx2": True, "avx512f": False}, "256 bits"),
        ({"sse2": True, "avx": False, "avx2": False}, "128 bits"),
        ({"neon": True}, "128 bits"),
        ({}, "unknown"),
    ],
)
def test_vector_width(run, monkeypatch, features, width):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: features)
    assert rows(run("info").out)["vector width"] == width


@pytest.mark.parametrize("n", [1, 2])
def test_threads(run, n):
    if n > available_cpus():
        pytest.skip(f"needs {n} CPUs")
    fastbp.set_num_threads(n)
    found = rows(run("info").out)
    assert found["threads"] == str(n)
    assert found["CPUs"] == str(available_cpus())
    assert found["threading layer"].startswith("matrix products: ")


def test_threads_that_cannot_serve_training(process):
    code, out, err = process("info", NUMBA_THREADING_LAYER="workqueue")
    assert (code, err) == (0, "")
    layer = "none" if jit.JIT_DISABLED else "workqueue"
    assert rows(out)["threading layer"].endswith(f"; training: {layer}, so on one thread")


def test_python_without_its_lock_is_said_to_be_untested(run, monkeypatch):
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    version = platform.python_version()
    expected = f"{version}, without the global interpreter lock: fastbp is untested there"
    assert rows(run("info").out)["Python"] == expected


def test_cache_folder(run, monkeypatch, tmp_path):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    for name in ("one.nbc", "two.nbc", "index.nbi"):
        (tmp_path / name).write_bytes(b"")
    assert rows(run("info").out)["cache folder"] == f"{tmp_path} (2 compiled kernels)"


def test_no_cache_folder(run, monkeypatch):
    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    assert rows(run("info").out)["cache folder"].startswith("none: ")


def test_mnist_is_nowhere(run):
    found = rows(run("info").out)
    assert found["FASTBP_DATA_DIR"] == "not set"
    assert found["MNIST"] == "not here yet"


def test_place_of_mnist(run, monkeypatch, tmp_path):
    for name in mnist.SHA256:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv("FASTBP_DATA_DIR", str(tmp_path))
    found = rows(run("info").out)
    assert found["FASTBP_DATA_DIR"] == str(tmp_path)
    assert found["MNIST"] == str(tmp_path)


def test_place_of_mnist_in_the_cache(run):
    folder = mnist.user_cache_dir() / "mnist"
    folder.mkdir()
    for name in mnist.SHA256:
        (folder / f"{name}.gz").write_bytes(b"")
    assert rows(run("info").out)["MNIST"] == str(folder)


# -- warmup ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Return a folder for compiled code, empty before the first test."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def warm(kernels, process):
    """Return the variables that name the folder, filled by a warmup."""
    variables = {"FASTBP_CACHE": "1", "FASTBP_CACHE_DIR": kernels}
    said = kernels / "said"
    if not said.exists():
        code, out, err = process("warmup", **variables)
        assert (code, err) == (0, "")
        said.write_text(out)
    return variables


def compiled(kernels):
    """Return the files of machine code with the time of their last change."""
    return {path: path.stat().st_mtime_ns for path in kernels.rglob("*.nbc")}


@needs_compiler
def test_warmup_compiles_every_kernel(warm, kernels):
    for module in pkgutil.iter_modules(fastbp.kernels.__path__):
        importlib.import_module(f"fastbp.kernels.{module.name}")
    out = (kernels / "said").read_text()
    number, folder = re.fullmatch(r"(\d+) kernels ready in [\d.]+ s: (.*)\n", out).groups()
    assert int(number) == jit.count_all()
    assert folder.startswith(str(kernels))
    # Without a T, the kernel for both types is one and the same.
    types = [2 if re.search(r"\bT\b", signature) else 1 for _, signature, _ in jit.KERNELS]
    assert len(compiled(kernels)) == sum(types)


@needs_compiler
@pytest.mark.parametrize(
    "arguments",
    [
        ("warmup",),
        ("train", "--iterations", 1, "--optimizer", "adam", "--weight-decay", 0.1),
        ("train", "--iterations", 1, "--dtype", "float32", "--activation", "sigmoid"),
        ("check", "--hidden", 2, "--activation", "sigmoid"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_nothing_is_compiled_after_a_warmup(warm, kernels, process, arguments):
    before = compiled(kernels)
    assert process(*arguments, **warm).code == 0
    assert compiled(kernels) == before


@needs_compiler
def test_no_announcement_after_a_warmup(warm, process):
    assert process("train", "--iterations", 1, **warm).err == ""


@needs_compiler
def test_quiet_warmup(warm, process):
    assert process("warmup", "--quiet", **warm) == (0, "", "")


@needs_compiler
def test_info_counts_what_a_warmup_compiled(warm, kernels, process):
    said = rows(process("info", **warm).out)["cache folder"]
    assert said.startswith(str(kernels))
    assert said.endswith(f"({len(compiled(kernels))} compiled kernels)")


@needs_compiler
def test_warmup_without_a_cache(process, tmp_path):
    variables = {"FASTBP_CACHE": "0", "FASTBP_CACHE_DIR": tmp_path / "cache"}
    code, out, err = process("warmup", **variables)
    assert (code, err) == (0, "")
    assert out.endswith(": memory only, lost when this process ends\n")
    assert list(tmp_path.iterdir()) == []


def test_info_without_a_cache(process, tmp_path):
    variables = {"FASTBP_CACHE": "0", "FASTBP_CACHE_DIR": tmp_path / "cache"}
    code, out, err = process("info", **variables)
    assert (code, err) == (0, "")
    assert rows(out)["cache folder"].startswith("none: ")
    assert list(tmp_path.iterdir()) == []
