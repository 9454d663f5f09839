"""Which methods of a kind there are: the files of its folder, by the names of their classes."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from torch import Tensor

from interp.types import Inputs

Kind = TypeVar("Kind")


def classes(folders: Sequence[str], kinds: tuple[type[Kind], ...]) -> dict[str, type[Kind]]:
    """Name and class of every method in some folders.

    Args:
        folders: Dotted names of packages.
        kinds: What their classes are kinds of.
    """
    found: dict[str, type[Kind]] = {}
    for folder in folders:
        for info in pkgutil.iter_modules(importlib.import_module(folder).__path__):
            module = importlib.import_module(f"{folder}.{info.name}")
            for name, kind in vars(module).items():
                own = inspect.isclass(kind) and kind.__module__ == module.__name__
                if own and issubclass(kind, kinds) and not inspect.isabstract(kind):
                    found[name] = kind
    return dict(sorted(found.items()))


def made(asked: str | Kind, known: Mapping[str, type[Kind]], argument: str) -> Kind:
    """A method by name, made with its defaults; one that is made already as it is.

    Args:
        asked: The name of a class, `GradCAM` or `grad-cam`, or a method.
        known: The classes that there are.
        argument: What messages call it.

    Raises:
        ValueError: If there is none of this name.
    """
    if not isinstance(asked, str):
        return asked
    named = {_folded(name): kind for name, kind in known.items()}
    if _folded(asked) not in named:
        raise ValueError(f"{argument} names {asked!r}, but known are {', '.join(known)}: choose of these.")
    return named[_folded(asked)]()


def described(method: Any, kinds: tuple[type, ...]) -> str:
    """The class and those of its arguments that are not the default.

    Args:
        method: A dataclass.
        kinds: Arguments that are described likewise.
    """
    given = []
    for part in fields(method):
        value = getattr(method, part.name)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        if value is not default and (isinstance(value, Tensor | Inputs) or value != default):
            given.append(f"{part.name}={described(value, kinds) if isinstance(value, kinds) else _shown(value)}")
    return type(method).__name__ + (f"({', '.join(given)})" if given else "")


def _shown(value: Any) -> str:
    """A value as a name shows it: of what holds many numbers, how many."""
    if isinstance(value, Tensor):
        return f"tensor{list(value.shape)}"
    return f"Inputs[{len(value)}]" if isinstance(value, Inputs) else repr(value)


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("++", "plusplus")
