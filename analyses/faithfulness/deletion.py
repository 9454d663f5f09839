"""Deletion (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from analyses.faithfulness.hiding import Hiding


@dataclass(frozen=True)
class Deletion(Hiding):
    """The mean score while positions are taken away, the largest values of the map first.

    In units of the score. Pixels where the input has a grid, else the activations that were mapped.
    """

    better: ClassVar[Literal["higher", "lower"]] = "lower"

    @property
    def largest(self) -> bool:
        """Whether the largest values go first."""
        return True
