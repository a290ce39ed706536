"""What an import costs, where every public name lives, and who may import whom."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fastbp

PACKAGE = Path(fastbp.__file__).parent

# --- `import fastbp` is quick --------------------------------------------------------------------

HEAVY = [
    "numba",
    "llvmlite",
    "scipy",
    "matplotlib",
    "sklearn",
    "safetensors",
    "pooch",
    "requests",
    "tqdm",
    "PIL",
    "threadpoolctl",
]


def loaded_by(code):
    """Return the modules a fresh process has loaded after this code."""
    code += "; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_fastbp_loads_nothing_heavy():
    assert loaded_by("import fastbp") & set(HEAVY) == set()


def test_the_reference_needs_numpy_alone():
    loaded = loaded_by("import fastbp.reference")
    assert loaded & set(HEAVY) == set()
    ours = {name for name in loaded if name.startswith("fastbp.")}
    assert ours == {name for name in ours if name.startswith("fastbp.reference")}


def test_training_loads_neither_pictures_nor_files_nor_data():
    loaded = loaded_by("import fastbp; fastbp.fit, fastbp.TwoLayerNet")
    assert loaded & {"matplotlib", "sklearn", "safetensors", "pooch", "requests", "PIL"} == set()


# --- where every public name lives ---------------------------------------------------------------

PUBLIC = {
    "layers": ["MulLayer", "AddLayer", "Relu", "Sigmoid", "Affine", "SoftmaxWithLoss"],
    "functions": [
        "identity_function",
        "step_function",
        "sigmoid",
        "sigmoid_grad",
        "relu",
        "relu_grad",
        "softmax",
        "mean_squared_error",
        "sum_squared_error",
        "cross_entropy_error",
        "softmax_loss",
    ],
    "gradient": ["numerical_diff", "numerical_gradient", "gradient_descent", "check_gradient"],
    "network": ["TwoLayerNet", "MultiLayerNet"],
    "optimizer": ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"],
    "trainer": ["fit", "Trainer"],
    "history": ["History"],
    "dataset": ["load_digits", "load_mnist"],
    "threads": ["set_num_threads", "get_num_threads"],
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]
HOMES = [(module, name) for module, names in fastbp._HOMES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_is_the_same_in_its_module_and_in_fastbp(module, name):
    home = importlib.import_module(f"fastbp.{module}")
    assert getattr(fastbp, name) is getattr(home, name)


@pytest.mark.parametrize(
    "name",
    [*PUBLIC["layers"], "TwoLayerNet", *PUBLIC["functions"], *PUBLIC["optimizer"]],
)
def test_the_reference_has_the_same_names(name):
    assert hasattr(fastbp.reference, name)


@pytest.mark.parametrize(("module", "name"), HOMES)
def test_every_name_at_the_top_is_in_all_of_its_module(module, name):
    assert name in importlib.import_module(f"fastbp.{module}").__all__


def test_all_of_fastbp_is_the_names_at_the_top():
    assert sorted(fastbp.__all__) == sorted(["__version__", *(name for _, name in HOMES)])


def test_dir_shows_every_public_name_and_module():
    assert {*fastbp.__all__, *fastbp._HOMES, "plot", "reference"} <= set(dir(fastbp))


def test_no_name_at_the_top_has_two_homes():
    names = [name for _, name in HOMES]
    assert len(set(names)) == len(names)


def test_a_star_import_brings_all_public_names():
    namespace = {}
    exec("from fastbp import *", namespace)
    assert set(fastbp.__all__) <= set(namespace)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fastbp' has no attribute 'Softplus'"):
        fastbp.Softplus  # noqa: B018


def module_name(path):
    parts = ["fastbp", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "fastbp.__main__"])
def test_every_name_in_all_exists(module):
    found = importlib.import_module(module)
    missing = [name for name in getattr(found, "__all__", []) if not hasattr(found, name)]
    assert missing == []


# --- who may import whom -------------------------------------------------------------------------

# A module may import from its own floor and from those below; nobody in a circle.
FLOORS = {
    "kernels": 0,
    "_files": 0,
    "_sealed": 0,
    "_interrupt": 0,
    "_quiet": 0,
    "_folders": 0,
    "_memory": 0,
    "reference": 0,
    "_arrays": 1,
    "_trees": 2,
    "pace": 1,
    "plan": 2,
    "layers": 2,
    "functions": 2,
    "threads": 2,
    "parallel": 2,
    "engine": 3,
    "examples": 3,
    "optimizer": 3,
    "gradient": 3,
    "sampling": 3,
    "_differences": 4,
    "_network": 5,
    "network": 6,
    "history": 7,
    "steps": 7,
    "checkpoint": 7,
    "report": 8,
    "_identity": 9,
    "checkpoints": 9,
    "trainer": 10,
    "dataset": 10,
    "plot": 11,
    "bench": 12,
    "cli": 13,
    "__main__": 14,
}

# Imports inside functions, which an import of the module does not run.  The command line, on top
# of everything, loads each thing when a command needs it.
LAZY = {
    "fastbp._sealed": {"safetensors"},
    "fastbp.bench.frameworks": {"torch"},
    "fastbp.bench.machine": {"llvmlite"},
    "fastbp.bench.peers": {"sklearn"},
    "fastbp.bench.pictures": {"matplotlib"},
    "fastbp.bench.with_jax": {"jax"},
    "fastbp.bench.with_tinygrad": {"tinygrad"},
    "fastbp.bench.with_torch": {"torch"},
    "fastbp.dataset.mnist": {"pooch", "tqdm"},
    "fastbp.history": {"fastbp.plot"},
    "fastbp.plot": {"matplotlib"},
    "fastbp.report": {"tqdm"},
    "fastbp.threads": {"fastbp.kernels.jit"},
}


def floor(module):
    """Return the floor of a module; the package itself, which imports nothing, is below all."""
    if module == "fastbp":
        return -1
    part = module.split(".")[1]
    assert part in FLOORS, f"{module} has no floor: give it a place in FLOORS, as design goes"
    return FLOORS[part]


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def targets(module, node):
    """Return the modules an import statement names: ours in full, others by their first part."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = node.module or ""
        if node.level:
            package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            base = f"{package}.{base}".rstrip(".")
        inside = [f"{base}.{alias.name}" for alias in node.names]
        names = [name for name in inside if name in SOURCES]
        if len(names) < len(inside):
            names.append(base)
    return {name if name.split(".")[0] == "fastbp" else name.split(".")[0] for name in names}


def imports(module):
    """Return what a module imports when it is imported, and what its functions import."""
    at_once, later = set(), set()

    def visit(node, found):
        if is_type_checking(node):
            for child in node.orelse:
                visit(child, found)
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= targets(module, node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found = later
        for child in ast.iter_child_nodes(node):
            visit(child, found)

    visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")), at_once)
    return at_once, later


def ours(names):
    return {name for name in names if name.split(".")[0] == "fastbp"}


every_module = pytest.mark.parametrize("module", SOURCES)


@every_module
def test_every_module_has_a_floor(module):
    assert floor(module) is not None


def test_every_floor_has_a_module():
    parts = {module.split(".")[1] for module in SOURCES if module != "fastbp"}
    assert set(FLOORS) == parts


@every_module
def test_nobody_imports_upwards(module):
    at_once, _ = imports(module)
    above = {name for name in ours(at_once) if floor(name) > floor(module)}
    assert above == set()


def test_nobody_imports_in_a_circle():
    graph = {module: ours(imports(module)[0]) - {module} for module in SOURCES}
    graphlib.TopologicalSorter(graph).prepare()


@every_module
def test_imports_inside_functions_are_on_the_list(module):
    _, later = imports(module)
    later = {name for name in later if name not in sys.stdlib_module_names}
    if module.startswith("fastbp.cli"):
        above = {name for name in ours(later) if floor(name) > floor(module)}
        assert above == set()
    else:
        assert later == LAZY.get(module, set())


# Those that write vector instructions themselves name Numba's types and LLVM's.
WRITERS = (
    "simd",
    "calls",
    "rows",
    "gemm",
    "sparse",
    "record",
    "arguments",
    "relu",
    "shell",
    "meeting",
)
INTRINSICS = {f"fastbp.kernels.{name}" for name in WRITERS}
VOCABULARY = {
    "llvmlite.binding",
    "llvmlite.ir",
    "numba.core.cgutils",
    "numba.core.types",
    "numba.np.arrayobj.populate_array",
}
# How compiled code reads what it knows the address of, as if it had a tuple.
READ_AS_TUPLES = {
    "numba.core.imputils.lower_getattr_generic",
    "numba.core.typing.templates.AttributeTemplate",
    "numba.extending.infer_getattr",
    "numba.extending.models",
    "numba.extending.register_model",
}
# What compiled code on disk is made of and named by.
CACHED = {
    "llvmlite",
    "numba",
    "numba.core.caching._Cache",
    "numba.core.compiler.CompileResult",
    "numba.core.serialize.dumps",
}
# How far parts are compiled.
LINKED = {"numba.core.codegen.JITCodeLibrary", "numba.core.compiler.Compiler"}


def compilers(module):
    """Return all that a module and its functions import of Numba and LLVM, in full."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("numba", "llvmlite")}


@every_module
def test_only_the_compile_policy_imports_numbas_decorators(module):
    found = compilers(module)
    if module == "fastbp.kernels.record":
        assert found <= VOCABULARY | READ_AS_TUPLES
    elif module in INTRINSICS:
        assert found <= VOCABULARY
    elif module in ("fastbp.cli.info", "fastbp.bench.machine"):
        assert found <= {"llvmlite.binding"}  # the name of the processor
    elif module == "fastbp.kernels.jit":
        assert "numba" in found
    elif module == "fastbp.kernels.cache":
        assert found <= CACHED
    elif module == "fastbp.kernels.parts":
        assert found <= LINKED
    else:
        assert found == set()


@pytest.mark.parametrize("module", [m for m in SOURCES if m.startswith("fastbp.reference")])
def test_the_reference_imports_nothing_of_fastbp_but_itself(module):
    at_once, later = imports(module)
    foreign = {
        name
        for name in at_once | later
        if name not in sys.stdlib_module_names and not name.startswith("fastbp.reference")
    }
    assert foreign <= {"numpy"}


@pytest.mark.parametrize("module", [m for m in SOURCES if m.startswith("fastbp.kernels")])
def test_kernels_import_numpy_numba_and_each_other(module):
    foreign = {
        name
        for name in imports(module)[0]
        if name not in sys.stdlib_module_names and not name.startswith("fastbp.kernels")
    }
    allowed = {"numba", "fastbp._interrupt"} if module == "fastbp.kernels.jit" else set()
    if module == "fastbp.kernels.cache":
        allowed = {"fastbp", "fastbp._folders", "numba", "llvmlite"}
    if module == "fastbp.kernels.parts":
        allowed = {"numba"}
    if module in INTRINSICS:
        allowed = {"numba", "llvmlite"}
    assert foreign <= {"numpy"} | allowed


@every_module
def test_what_is_not_installed_with_fastbp_is_imported_only_when_used(module):
    at_once, _ = imports(module)
    foreign = {name for name in at_once - ours(at_once) if name not in sys.stdlib_module_names}
    assert foreign <= {"numpy", "numba", "llvmlite", "threadpoolctl"}
