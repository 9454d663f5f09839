"""The rules of dependency, held by reading the imports."""

import ast
import functools
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("interp", "saes", "analyses")
MAY_IMPORT = {"interp": set(), "saes": {"interp"}, "analyses": {"interp", "saes"}}
# Where an import that is heavy or optional may stand, at the top of a file or inside a function.
HOMES = {
    "transformer_lens": ("interp/models/bridge.py",),
    "transformers": ("interp/models/",),
    "datasets": ("interp/data/", "interp/harvesting.py"),
    "pyarrow": ("analyses/dictionary/",),
    "seaborn": ("analyses/plots/",),
    "matplotlib": ("analyses/plots/",),
    "triton": ("saes/engine/kernels/",),
    "sklearn": ("saes/baselines/",),
    "captum": ("analyses/attribution/",),
    "tyro": ("analyses/commands/",),
    "yaml": ("analyses/commands/",),
}
# Folders in which each file is a method of its own; what they share is in the files named.
METHODS = {
    "saes/penalties": {"base"},
    "saes/metrics": {"base", "bootstrap", "matching", "splicing", "summing"},
    "saes/probes": {"base", "logistic", "samples"},
    "saes/baselines": {"base", "reading"},
    "saes/codebooks": {"base"},
    "analyses/cam": {"base", "principal"},
    "analyses/attribution": {"base"},
    "analyses/scores": {"base"},
    "analyses/faithfulness": {"base", "hiding", "ranking", "truth"},
    "analyses/segmentation": {"base"},
}
LONGEST = 250


@functools.cache
def _files() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def _modules() -> set[str]:
    return {_module(file) for file in _files()}


def _nodes(tree: ast.AST, *, running: bool) -> Iterator[ast.AST]:
    """All nodes; with `running` those that an import of the module runs: no functions, nothing only for types."""
    for node in ast.iter_child_nodes(tree):
        if running and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if running and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _nodes(node, running=running)


def _imports(file: str, *, running: bool = False) -> set[str]:
    """Modules that a file imports; `from a import b` is `a.b` where that is a module of ours."""
    found = set()
    for node in _nodes(_files()[file], running=running):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{file}:{node.lineno} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & _modules()) or {node.module}
    return found


def _method_files() -> list[tuple[str, set[str]]]:
    """Files of one method each, with the modules beside them that they must not import."""
    names = {method.__module__ for method in importlib.import_module("saes.loading").methods().values()}
    found = [(f"{name.replace('.', '/')}.py", names - {name}) for name in sorted(names)]
    for folder, shared in METHODS.items():
        package = folder.replace("/", ".")
        names = {module for module in _modules() if module.rpartition(".")[0] == package}
        own = {name for name in names if name.rpartition(".")[2] not in shared}
        found += [(f"{name.replace('.', '/')}.py", own - {name}) for name in sorted(own)]
    return found


def test_imports_flow_one_way() -> None:
    for file in _files():
        package = file.split("/")[0]
        others = {name.split(".")[0] for name in _imports(file)} & set(PACKAGES) - {package}
        assert others <= MAY_IMPORT[package], file


def test_methods_import_no_sibling() -> None:
    files = dict(_method_files())
    assert {"saes/topk.py", "saes/penalties/l1.py", "saes/metrics/fvu.py"} <= files.keys()
    for file, siblings in files.items():
        assert not _imports(file) & siblings, file


@pytest.mark.parametrize("library", HOMES)
def test_heavy_imports_stay_in_their_homes(library: str) -> None:
    users = {file for file in _files() if library in {name.split(".")[0] for name in _imports(file)}}
    assert {file for file in users if not file.startswith(HOMES[library])} == set()


def test_scikit_learn_is_imported_by_the_fit_that_uses_it() -> None:
    users = {file for file in _files() if "sklearn" in {name.split(".")[0] for name in _imports(file, running=True)}}
    assert users == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {_module(file): _imports(file, running=True) & _modules() for file in _files()}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                walk(other, (*path, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())


def test_files_are_short() -> None:
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in _files()}
    assert {file: length for file, length in lengths.items() if length > LONGEST} == {}


def test_files_are_nouns() -> None:
    """A module of the name of what its package re-exports would be handed out in its place."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        exported = set(getattr(package, "__all__", ()))
        assert not exported & {module.name for module in pkgutil.iter_modules(package.__path__)}
    stems = {Path(file).stem for file in _files()}
    assert not stems & {"utils", "util", "common", "helpers", "registry", "config"}


def test_everything_exported_is_there() -> None:
    for name in PACKAGES:
        package = importlib.import_module(name)
        assert all(getattr(package, exported) is not None for exported in getattr(package, "__all__", ()))
        with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'"):
            package.nonsense


def test_no_package_under_the_tests() -> None:
    """`tests/saes/__init__.py` would stand in for the real `saes`."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_file_is_of_a_kind_that_installs() -> None:
    for file in _files():
        folder = (ROOT / file).parent
        assert (folder / "__init__.py").exists(), f"{folder} is no package, so a wheel would leave it out"


COST = """
import json, sys, time
import torch
start = time.process_time()
import saes, saes.topk
cost = time.process_time() - start
import interp, analyses
heavy = "transformers transformer_lens datasets seaborn matplotlib pyarrow pandas tyro sklearn scipy captum".split()
print(json.dumps([cost, [name for name in heavy if name in sys.modules]]))
"""


def test_importing_a_method_costs_what_importing_torch_costs() -> None:
    for _ in range(3):  # The best of three: the first may have to compile.
        out = subprocess.run([sys.executable, "-c", COST], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        cost, heavy = json.loads(out)
        assert heavy == []
        if cost < 0.3:
            return
    pytest.fail(f"import saes.topk takes {cost:.2f} s more than import torch: what does it import?")
