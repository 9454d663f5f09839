"""Class sensitivity (Rebuffi et al. 2020, https://arxiv.org/abs/2004.02866)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge
from analyses.faithfulness.ranking import rank_correlation


@dataclass(frozen=True)
class ClassSensitivity(Judge):
    """The rank correlation of an example's maps for its own score and for another, by default its least likely class.

    A method that shows what the score depends on gives two maps; one whose maps are the same (1) shows what stands out
    in the example, whatever is asked.
    """

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    sanity: ClassVar[bool] = True
    limit: ClassVar[float | None] = 0.9
    needs: ClassVar[Literal["truth", "other"] | None] = "other"

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The correlations.

        Raises:
            ValueError: If there is no other score.
        """
        if case.other is None:
            raise ValueError("other is None, but this judge compares maps of two scores: give other=.")
        return rank_correlation(case.maps, case.again(case.inputs, case.other), case.kept(case.maps))
