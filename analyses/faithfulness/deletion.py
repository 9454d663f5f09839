"""Deletion (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge, over_runs
from analyses.faithfulness.hiding import Hiding, areas


@dataclass(frozen=True)
class Deletion(Hiding, Judge):
    """The mean score while positions are taken away, the largest values of the map first.

    In units of the score. Pixels where the input has a grid, else the activations that were mapped.
    """

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    sanity: ClassVar[bool] = True

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The areas under the curves."""
        return over_runs(case, lambda runner, maps: areas(self.curve(runner, maps, largest=True)))
