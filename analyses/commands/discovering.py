"""Which subcommands there are, read from their source: nothing of them is imported to list them."""

import ast
import pkgutil
from importlib.machinery import FileFinder
from typing import cast

from analyses import commands as _folder


def subcommands() -> dict[str, str]:
    """Name and one-line summary of each subcommand: the modules of this folder that define `Arguments` and `run`."""
    found = {}
    for module in sorted(pkgutil.iter_modules(_folder.__path__), key=lambda module: module.name):
        tree = _parsed(cast(FileFinder, module.module_finder), module.name)
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        if {"Arguments", "run"} <= defined:
            found[module.name.replace("_", "-")] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def module_of(name: str) -> str:
    """Dotted name of a subcommand's module."""
    return f"{_folder.__name__}.{name.replace('-', '_')}"


def _parsed(finder: FileFinder, name: str) -> ast.Module:
    spec = finder.find_spec(f"{_folder.__name__}.{name}")
    source = spec.loader.get_source(spec.name) if spec and spec.loader else None  # type: ignore[attr-defined]
    return ast.parse(source or "")
