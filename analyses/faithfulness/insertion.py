"""Insertion (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from analyses.faithfulness.hiding import Hiding


@dataclass(frozen=True)
class Insertion(Hiding):
    """The mean score while positions are put back into the baseline, the largest values of the map first.

    In units of the score. Pixels where the input has a grid, else the activations that were mapped.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"

    @property
    def largest(self) -> bool:
        """Whether the largest values go first."""
        # Putting back the largest first is taking away the smallest first, read from the end.
        return False
