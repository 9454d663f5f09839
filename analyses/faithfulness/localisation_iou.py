"""Localisation by a threshold (Zhou et al. 2016, https://arxiv.org/abs/1512.04150; Choe et al. 2020, https://arxiv.org/abs/2001.07437)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge
from analyses.faithfulness.truth import beside_truth


@dataclass(frozen=True)
class LocalisationIoU(Judge):
    """Intersection over union of the object with the largest values of a map, from 0 to 1.

    Args:
        threshold: Values over this share of the way from the map's smallest to its largest count; None for as many
            positions as the object has, which needs no threshold and favours no method's units.

    Raises:
        ValueError: If it is not between 0 and 1.
    """

    threshold: float | None = None

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    needs: ClassVar[Literal["truth", "other"] | None] = "truth"

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(
                f"threshold is {self.threshold}, but it is a share of a map's range: give 0 < threshold < 1, or None."
            )

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The overlaps."""
        maps, truth = beside_truth(case)
        if self.threshold is None:
            order = maps.argsort(dim=1, descending=True, stable=True)
            chosen = order.argsort(dim=1) < truth.sum(dim=1, keepdim=True)
        else:
            low, high = maps.amin(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True)
            # A constant map is over no threshold, and marks everything.
            chosen = (maps > low + self.threshold * (high - low)) | (high == low)
        return (chosen & truth).sum(dim=1).to(maps) / torch.clamp((chosen | truth).sum(dim=1), min=1)
