"""Which methods there are: the files of `analyses.cam` and `analyses.attribution`, by the names of their classes."""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from dataclasses import MISSING, fields

from analyses.attribution.base import ModelMethod
from analyses.cam.base import LocalMethod

Method = LocalMethod | ModelMethod
_FOLDERS = ("analyses.cam", "analyses.attribution")


def methods() -> dict[str, type[Method]]:
    """Name and class of every method."""
    found: dict[str, type[Method]] = {}
    for folder in _FOLDERS:
        for info in pkgutil.iter_modules(importlib.import_module(folder).__path__):
            module = importlib.import_module(f"{folder}.{info.name}")
            for name, kind in vars(module).items():
                own = inspect.isclass(kind) and kind.__module__ == module.__name__
                if own and issubclass(kind, LocalMethod | ModelMethod) and not inspect.isabstract(kind):
                    found[name] = kind
    return dict(sorted(found.items()))


def chosen(asked: Sequence[str | Method]) -> dict[str, Method]:
    """Methods by what maps call them: those named are made with their defaults.

    Args:
        asked: Names of classes, `GradCAM` or `grad-cam`, and methods made with arguments.

    Raises:
        ValueError: If there is no such method, none is asked for, or one twice.
    """
    found = {_described(method): method for method in map(_made, asked)}
    if len(found) < max(len(asked), 1):
        raise ValueError(f"methods is {list(asked)}, but at least one is needed, and each once: give other arguments.")
    return found


def _made(method: str | Method) -> Method:
    if not isinstance(method, str):
        return method
    known = methods()
    named = {_folded(name): kind for name, kind in known.items()}
    if _folded(method) not in named:
        raise ValueError(f"methods names {method!r}, but known are {', '.join(known)}: choose of these.")
    return named[_folded(method)]()


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("++", "plusplus")


def _described(method: Method) -> str:
    """The class and those of its arguments that are not the default."""
    given = []
    for part in fields(method):  # type: ignore[arg-type]
        value = getattr(method, part.name)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        if value != default:
            own = _described(value) if isinstance(value, LocalMethod | ModelMethod) else repr(value)
            given.append(f"{part.name}={own}")
    return type(method).__name__ + (f"({', '.join(given)})" if given else "")
