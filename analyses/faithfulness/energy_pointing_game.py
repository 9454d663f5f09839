"""Energy-based pointing game (Wang et al. 2020, https://arxiv.org/abs/1910.01279)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge
from analyses.faithfulness.truth import beside_truth


@dataclass(frozen=True)
class EnergyPointingGame(Judge):
    """The share of a map's positive values that lies on the object, from 0 to 1.

    A map without a positive value counts as constant, so that it scores what chance would.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    needs: ClassVar[Literal["truth", "other"] | None] = "truth"

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The shares."""
        maps, truth = beside_truth(case)
        energy = maps.relu()
        energy = torch.where((energy > 0).any(dim=1, keepdim=True), energy, torch.ones_like(energy))
        return (energy * truth).sum(dim=1) / energy.sum(dim=1)
