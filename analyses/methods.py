"""Which ways to make maps there are: the files of `analyses.cam` and `analyses.attribution`."""

from collections.abc import Sequence

from analyses.attribution.base import ModelMethod
from analyses.cam.base import LocalMethod
from analyses.discovering import classes, described, made

Method = LocalMethod | ModelMethod
_KINDS = (LocalMethod, ModelMethod)


def methods() -> dict[str, type[Method]]:
    """Name and class of every method."""
    return classes(("analyses.cam", "analyses.attribution"), _KINDS)


def chosen(asked: Sequence[str | Method]) -> dict[str, Method]:
    """Methods by what maps call them: those named are made with their defaults.

    Args:
        asked: Names of classes, `GradCAM` or `grad-cam`, and methods made with arguments.

    Raises:
        ValueError: If there is no such method, none is asked for, or one twice.
    """
    known, found = methods(), dict[str, Method]()
    for one in asked:
        method = made(one, known, "methods")
        name = described(method, _KINDS)
        alike = [own for own in found if own.partition("#")[0] == name]
        if any(found[own] == method for own in alike):
            raise ValueError(f"methods is {list(asked)}, but {name} is there twice: ask for each once.")
        # Two of one name hold tensors of one shape (baselines): a number tells them apart.
        found[f"{name}#{len(alike) + 1}" if alike else name] = method
    if not found:
        raise ValueError("methods is empty, but at least one is needed: name some.")
    return found
