"""What the package never does, whatever it is given to read: SECURITY.md's promises in its code.

Ruff's rules and bandit look for the same and more; these have one exception, and run with the
suite.
"""

import ast
from pathlib import Path

import pytest

import fastbp

PACKAGE = Path(fastbp.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Modules whose readers run what they read.
FORBIDDEN = {
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
    "yaml",
    "code",
    "codeop",
    "multiprocessing",  # its connections pickle
}
# Machine code as Numba packs it, in the folder that is trusted because it is the user's own.
EXCEPTIONS = {"kernels/cache.py": ["imports pickle"]}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
STARTS_PROGRAMS = {"system", "popen", "execv", "execve", "spawnl", "spawnv", "startfile"}
NUMPY_READERS = {"load", "fromfile", "memmap", "open_memmap", "read_array"}


def violations(source):
    """Return what a module's source does of what it must not, as texts."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else []
        else:
            names = []
        found += [f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN]
        if isinstance(node, ast.Call):
            found += call_violations(node)
        # A name alone is enough: f = eval
        if isinstance(node, ast.Name) and node.id in RUNS_TEXT - {"compile"}:
            found.append(f"names {node.id}")
    return found


def call_violations(node):
    """Return what is wrong with a call."""
    found = []
    function = node.func
    name = getattr(function, "id", None) or getattr(function, "attr", "")
    on = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    if isinstance(function, ast.Name) and name in RUNS_TEXT:
        found.append(f"calls {name}")
    if on == "os" and name in STARTS_PROGRAMS:
        found.append(f"calls os.{name}")
    if name == "import_module" and not isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
        found.append("imports a module whose name is not in the source")
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    pickled = options.get("allow_pickle")
    refused = isinstance(pickled, ast.Constant) and pickled.value is False
    if pickled is not None and not refused:
        found.append("allow_pickle")
    if on in ("np", "numpy", "np.lib.format", "format") and name in NUMPY_READERS and not refused:
        found.append(f"{on}.{name} without allow_pickle=False")
    shell = options.get("shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        found.append("shell")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_runs_nothing_it_reads(path):
    found = violations(path.read_text(encoding="utf-8"))
    assert found == EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), [])


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import os, marshal as m",
        "def f():\n    import shelve",
        "import multiprocessing.connection",
        "import dill",
        "eval('1')",
        "exec(text)",
        "compile(text, '', 'exec')",
        "f = eval",
        "__import__(name)",
        "importlib.import_module(name)",
        "os.system('true')",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=anything)",
        "read(file, allow_pickle=True)",
        "np.memmap(file)",
        "run(command, shell=True)",
    ],
)
def test_what_is_forbidden_is_noticed(source):
    assert violations(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "np.load(file, allow_pickle=False)",
        "compiled.compile(signature)",
        "re.compile('x')",
        "import json, safetensors.numpy",
        "importlib.import_module(f'.{name}', __name__)",
        "from . import pickle_free",
    ],
)
def test_what_is_allowed_is_not(source):
    assert violations(source) == []


def test_every_module_was_looked_at():
    assert len(MODULES) > 60
    assert PACKAGE / "dataset" / "npz.py" in MODULES
