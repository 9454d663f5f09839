"""What several tests share: a disk that fails on demand, a tiny text model, and the rule for missing tools.

Nothing of ours is imported at the top: this file is read before the shape checks are switched on.
"""

import contextlib
import errno
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

# Triton reads it when it is first imported, which torch does by itself: the kernels run in its interpreter here.
os.environ["TRITON_INTERPRET"] = "1"


# Files of minutes, which would leave the other process without work if they came last.
_LONGEST = ("test_notebooks.py", "test_demo.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


def needs(name: str) -> None:
    """Skip where a module or binary is missing, with the reason; fail in CI, where everything must be there."""
    if importlib.util.find_spec(name) is not None or shutil.which(name):
        return
    reason = f"{name} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true runs every test")
    pytest.skip(reason)


@pytest.fixture(name="needs")
def _needs() -> Any:
    return needs


@dataclass
class Disk:
    """What a failing disk was asked: `calls` so far, and whether one of them failed."""

    calls: int = 0
    failed: bool = False


@contextlib.contextmanager
def failing_disk(call: str, index: int, error: int = errno.ENOSPC) -> Iterator[Disk]:
    """Make every `call` ("write", "fsync" or "replace") of `interp.durability` from the `index`-th on fail.

    A full disk stays full: code that only tries again is found out.
    """
    assert call in ("write", "fsync", "replace"), call
    from interp import durability

    disk, real = Disk(), getattr(os, call)

    def refuse(*args: Any) -> Any:
        disk.calls += 1
        if disk.calls > index:
            disk.failed = True
            raise OSError(error, os.strerror(error))
        return real(*args)

    shim = SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | {call: refuse})
    durability.os = shim  # type: ignore[attr-defined]
    try:
        yield disk
    finally:
        durability.os = os  # type: ignore[attr-defined]


@pytest.fixture(name="failing_disk")
def _failing_disk() -> Any:
    return failing_disk


def _beside(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_text() -> Any:
    """A causal text model of two blocks with `blocks.0` and `blocks.1`, seeded."""
    return _beside("tiny_text").TinyText()


@pytest.fixture
def tiny_vision() -> Any:
    """A vision model of two blocks over a grid of 3 x 5 patches behind a class token, seeded."""
    return _beside("tiny_vision").TinyVision()


@pytest.fixture
def sentences() -> Any:
    """A function from a number (and seed) to that many items with `text` and `kind`."""
    return _beside("tiny_text").sentences
