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
    known = methods()
    found = {described(method, _KINDS): method for method in (made(one, known, "methods") for one in asked)}
    if len(found) < max(len(asked), 1):
        raise ValueError(f"methods is {list(asked)}, but at least one is needed, and each once: give other arguments.")
    return found
