"""LEARN: directions in activation space."""

import importlib
from typing import Any

_HOMES = {
    "SAE": "saes.base",
    "load": "saes.loading",
    "Job": "saes.training",
    "TrainConfig": "saes.training",
    "Trainer": "saes.training",
    "train": "saes.training",
    "EndToEnd": "saes.signals.end_to_end",
    "sweep": "saes.sweeping",
    "evaluate": "saes.evaluation",
    "Identity": "saes.baselines.identity",
    "Random": "saes.baselines.random",
    "PCA": "saes.baselines.pca",
    "ICA": "saes.baselines.ica",
    "NMF": "saes.baselines.nmf",
    "KMeans": "saes.baselines.k_means",
    "VectorQuantizer": "saes.codebooks.vector_quantizer",
    "SimVQ": "saes.codebooks.simvq",
    "SparseDistributed": "saes.codebooks.sparse_distributed",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'saes' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}.")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
