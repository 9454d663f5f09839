"""Which firings of a bundle get a map, and their maps in 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary import tables

STEPS = 127


@dataclass(frozen=True)
class Firings:
    """Firings, each once, sorted by feature, item and position.

    Args:
        feature: What fires.
        item: In which item of the store.
        position: Where, prefix tokens counted.
        value: The activation that the bundle gives.
    """

    feature: NDArray[np.int64]
    item: NDArray[np.int64]
    position: NDArray[np.int64]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.feature)

    def __getitem__(self, rows: NDArray[np.int64]) -> "Firings":
        return Firings(self.feature[rows], self.item[rows], self.position[rows], self.value[rows])

    @classmethod
    def shown(cls, group: tables.Group, top: int | None) -> "Firings":
        """Those of the examples of some features.

        Args:
            group: The examples.
            top: Strongest examples a feature; None for all examples.
        """
        columns = group.columns
        wanted = [
            top is None or (kind == "top" and rank < top)
            for kind, rank in zip(columns["bin"], columns["rank"], strict=True)
        ]
        keys = np.array([columns[name] for name in ("feature", "item", "position")], np.int64)[:, wanted]
        keys, first = np.unique(keys, axis=1, return_index=True)
        feature, item, position = keys
        return cls(feature, item, position, np.array(columns["activation"], np.float64)[wanted][first])


def quantised(firings: Firings, scores: NDArray[np.float64], maps: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """Columns of the file of maps: steps of one scale a feature, around `STEPS + 1`.

    Args:
        firings: What was mapped, sorted by feature.
        scores: What each map explains.
        maps: Their maps.
    """
    largest = np.array([np.abs(one).max(initial=0) for one in maps])
    scale = np.ones(len(firings))
    for feature in np.unique(firings.feature):
        rows = firings.feature == feature
        scale[rows] = largest[rows].max() / STEPS or 1.0
    scale = scale.astype(np.float32)
    steps = [np.rint(one.ravel() / unit).clip(-STEPS, STEPS) for one, unit in zip(maps, scale, strict=True)]
    flat = (np.concatenate([np.empty(0), *steps]) + STEPS + 1).astype(np.uint8)
    return {
        "feature": firings.feature,
        "item": firings.item,
        "position": firings.position,
        "score": scores,
        "scale": scale,
        "values": tables.lists(
            np.array([one.size for one in maps], np.int64), flat, tables.MAPS.field("values").type.value_type
        ),
    }
