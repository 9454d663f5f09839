"""EXPLAIN: what directions mean and do."""

import importlib
from typing import Any

_HOMES = {
    "FeatureDictionary": "analyses.dictionary.bundle",
    "attribute": "analyses.attributing",
    "attribute_latents": "analyses.ledger",
    "export_page": "analyses.dashboard.exporting",
    "judge": "analyses.judging",
    "segment": "analyses.segmenting",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'analyses' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}.")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
