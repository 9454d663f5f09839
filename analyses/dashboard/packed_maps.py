"""Maps for a page, laid beside the examples that they belong to."""

import base64
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary import tables
from analyses.dictionary.bundle import FeatureDictionary
from interp.types import JSON


class PackedMaps:
    """The maps of a bundle.

    Args:
        bundle: A bundle that has some.
    """

    def __init__(self, bundle: FeatureDictionary) -> None:
        about = bundle.manifest["maps"]
        self._zero, self._geometry, self._asked = about["zero"], about["geometry"], about["asked"]

    def about(self) -> JSON:
        """What holds for all of them, the layout as that of the features is given."""
        asked, geometry = self._asked, self._geometry
        return {
            "method": asked["method"],
            "site": asked["site"],
            "grid": geometry["grid"],
            "input": geometry["input_size"],
            "stride": geometry["stride"],
            "start": geometry.get("start", []),
            "zero": self._zero,
        }

    def lay(self, rows: Sequence[dict[str, Any]], group: tables.Group, entries: Sequence[JSON]) -> None:
        """Give features that have maps their scale, and examples their map: cut to the window, where it is a sequence.

        Args:
            rows: The maps of a group of features.
            group: The examples of these features.
            entries: What the page is given of them, to be added to.
        """
        known = {(row["feature"], row["item"], row["position"]): row for row in rows}
        scales = {row["feature"]: row["scale"] for row in rows}
        low = dict.fromkeys(scales, False)
        for row in rows:
            low[row["feature"]] |= bool((row["values"] < self._zero).any())
        lengths = iter(np.diff(group.windows.offsets).tolist())
        for feature, entry in zip(group.features, entries, strict=True):
            if feature in scales:
                entry["map"] = {"scale": float(f"{scales[feature]:.6g}"), "signed": low[feature]}
            for example, length in zip(
                entry["examples"], itertools.islice(lengths, len(entry["examples"])), strict=True
            ):
                key = (feature, example["item"], example["position"])
                if key in known:
                    self._give(example, known[key], length)

    def _give(self, example: JSON, row: dict[str, Any], length: int) -> None:
        steps: NDArray[np.uint8] = row["values"]
        if not self._geometry["grid"]:
            whole = np.concatenate([np.full(self._geometry["prefix"], self._zero, np.uint8), steps])
            steps = whole[example["start"] : example["start"] + length]
            if len(whole) > len(steps):
                beyond = int(whole.sum(dtype=int) - steps.sum(dtype=int)) - self._zero * (len(whole) - len(steps))
                example["beyond"] = float(f"{beyond * row['scale']:.6g}")
            steps = np.concatenate([steps, np.full(length - len(steps), self._zero, np.uint8)])
        example["map"] = base64.b64encode(steps.tobytes()).decode()
