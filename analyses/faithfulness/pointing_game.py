"""Pointing game (Zhang et al. 2016, https://arxiv.org/abs/1608.00507)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from analyses.faithfulness.base import Case, Judge
from analyses.faithfulness.truth import beside_truth


@dataclass(frozen=True)
class PointingGame(Judge):
    """Whether the largest value of a map lies on the object: 1 or 0.

    Where several values are the largest, the share of them that does; so a constant map scores what chance would.

    Args:
        tolerance: How far beside the object still counts, in positions along an axis (15 pixels of 224 in the paper).

    Raises:
        ValueError: If it is negative.
    """

    tolerance: int = 0

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    needs: ClassVar[Literal["truth", "other"] | None] = "truth"

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance is {self.tolerance}, but it is a distance: give at least 0.")

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The hits."""
        maps, truth = beside_truth(case)
        if self.tolerance:
            truth = self._widened(truth.view(case.shown.shape).to(maps)).flatten(1) > 0
        largest = maps == maps.amax(dim=1, keepdim=True)
        return (largest & truth).sum(dim=1).to(maps) / largest.sum(dim=1)

    def _widened(self, truth: Float[Tensor, " b *grid"]) -> Float[Tensor, " b *grid"]:
        # Along one axis after the other, whatever their number.
        for axis in range(1, truth.ndim):
            lines = truth.movedim(axis, -1)
            pooled = functional.max_pool1d(
                lines.flatten(1, -2) if lines.ndim > 2 else lines[:, None], 2 * self.tolerance + 1, 1, self.tolerance
            )
            truth = pooled.view(lines.shape).movedim(-1, axis)
        return truth
