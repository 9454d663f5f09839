"""READ: what a model computes, as data."""

import importlib
from typing import Any

_HOMES = {
    "Activations": "interp.types",
    "Directions": "interp.types",
    "Geometry": "interp.types",
    "Inputs": "interp.types",
    "Item": "interp.types",
    "Latents": "interp.types",
    "Site": "interp.types",
    "Capture": "interp.captured",
    "Preprocessing": "interp.preprocessing",
    "TorchModel": "interp.models.torch_module",
    "MemoryStore": "interp.stores.memory",
    "DiskStore": "interp.stores.disk",
    "open_stores": "interp.stores.disk",
    "StreamStore": "interp.stores.stream",
    "paired": "interp.stores.paired",
    "concatenated": "interp.stores.concatenated",
    "whole_examples": "interp.stores.whole_examples",
    "appended": "interp.stores.appended",
    "append": "interp.stores.appending",
    "statistics": "interp.stores.statistics",
    "capture": "interp.capturing",
    "diagnose": "interp.diagnosis",
    "edited": "interp.capturing",
    "spliced": "interp.splicing",
    "harvest": "interp.harvesting",
    "load_model": "interp.loading",
    "measure": "interp.measuring",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}.")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
