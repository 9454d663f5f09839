"""Infidelity (Yeh et al. 2019, https://arxiv.org/abs/1901.09392)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge, over_runs
from analyses.faithfulness.hiding import BASELINES, Baseline, covered, random_cells
from analyses.running import Runner


@dataclass(frozen=True)
class Infidelity(Judge):
    """How far the sum of a map over hidden positions is from the fall of the score, squared, over random ones.

    In squared units of the score. Square removal: cells of a coarse grid are hidden, the same for all examples. Maps
    have units of their own, so each is first multiplied with the factor that suits it best, as the paper proposes; 1
    is then a map that tells nothing.

    Args:
        samples: Sets of cells.
        cells: Cells a side.
        share: Probability that a cell is hidden.
        baseline: What takes the place of hidden positions.
        scaled: Multiply each map with its best factor, and divide by the mean square of the falls.
        seed: Names the sets.

    Raises:
        ValueError: If a number is out of its range.
    """

    samples: int = 32
    cells: int = 7
    share: float = 0.2
    baseline: Baseline = "mean"
    scaled: bool = True
    seed: int = 0

    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def __post_init__(self) -> None:
        if self.samples < 2 or self.cells < 1 or not 0 < self.share < 1 or self.baseline not in BASELINES:
            raise ValueError(
                f"Infidelity has {self.samples} samples, {self.cells} cells, share {self.share} and baseline "
                f"{self.baseline!r}, but needs at least 2 samples and 1 cell, a share between 0 and 1 and a baseline "
                f"of {', '.join(BASELINES)}: choose such."
            )

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The errors."""
        return over_runs(case, self._of_run)

    def _of_run(self, runner: Runner, maps: Float[Tensor, " n *grid"]) -> Float[Tensor, " n"]:
        grid = tuple(maps.shape[1:])
        draws = (random_cells(i, grid, self.cells, self.share, self.seed) for i in range(self.samples))
        sets = torch.stack(list(draws)).to(maps.device)
        hidden = (chosen.expand(len(maps), -1) for chosen in sets)
        scores = torch.stack(list(runner.scores_of(covered(runner, hidden, self.baseline))), dim=1)
        told = maps.flatten(1) @ sets.to(maps).T
        return infidelity(told, (runner.scores()[:, None] - scores).to(told), scaled=self.scaled)


def infidelity(told: Float[Tensor, "b n"], falls: Float[Tensor, "b n"], *, scaled: bool) -> Float[Tensor, " b"]:
    """The mean squared difference of what maps tell and what the score does.

    Args:
        told: Sum of each map over each set.
        falls: How far the score falls.
        scaled: Multiply what is told with the best factor, and divide by the mean square of the falls, so that the
            result is from 0 to 1.
    """
    if not scaled:
        return (told - falls).square().mean(dim=1)
    square, size = told.square().sum(dim=1), falls.square().sum(dim=1)
    factor = (told * falls).sum(dim=1) / torch.where(square > 0, square, torch.ones_like(square))
    left = (factor[:, None] * told - falls).square().sum(dim=1)
    # A score that nothing moves is told by any map.
    return left / torch.where(size > 0, size, torch.ones_like(size))
