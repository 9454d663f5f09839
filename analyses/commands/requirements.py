"""What the project asks of its environment, from its metadata or, run from a checkout, from pyproject.toml."""

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

_PROJECT = "unweave"


def version() -> str:
    """The version of unweave."""
    try:
        return metadata.version(_PROJECT)
    except metadata.PackageNotFoundError:
        return str(_checkout()["version"])


def python() -> str:
    """The versions of Python it takes, such as `>=3.11`."""
    try:
        return str(metadata.metadata(_PROJECT)["Requires-Python"])
    except metadata.PackageNotFoundError:
        return str(_checkout()["requires-python"])


def dependencies() -> list[str]:
    """What must be installed, one requirement each; optional ones left out."""
    try:
        found = metadata.requires(_PROJECT) or []
    except metadata.PackageNotFoundError:
        found = _checkout()["dependencies"]
    return [requirement for requirement in found if "extra ==" not in requirement]


def _checkout() -> dict[str, Any]:
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if not path.exists():
        raise ValueError(
            f"{_PROJECT} is not installed, and {path} is not there: install it (pip install {_PROJECT}), "
            "or run it from a checkout."
        )
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]
