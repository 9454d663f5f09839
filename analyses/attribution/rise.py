"""RISE (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421)."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner
from interp.stores.shuffling import counter_key

_MASK = 3  # purpose of the counter-based generator


@dataclass(frozen=True)
class RISE(ModelMethod):
    """The mean score under random masks that show a position, masks weighted by how much they show it.

    In units of the score, and of its deviations unless `center` is False: scores that are far from 0, as logits are,
    would show how often each position happened to be shown. The masks are the same for all examples, a function of the
    seed alone. For grids of one or two axes.

    Args:
        masks: How many.
        cells: Cells a side of the coarse grid that masks are drawn on, before they are grown smoothly and shifted.
        shown: Probability that a cell is shown.
        baseline: What hidden activations are.
        center: Subtract the mean score of all masks from each first. The paper, whose scores are probabilities, does
            not.
        seed: Names the masks.

    Raises:
        ValueError: If a number is out of its range; in use, if the grid has more than two axes.
    """

    masks: int = 500
    cells: int = 7
    shown: float = 0.5
    baseline: float = 0.0
    center: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.masks < 1 or self.cells < 1 or not 0 < self.shown < 1:
            raise ValueError(
                f"RISE has {self.masks} masks of {self.cells} cells shown with probability {self.shown}, but needs at "
                "least one of each and a probability between 0 and 1: choose such values."
            )

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        values = runner.values
        grid = tuple(runner.vectors(values).shape[1:-1])
        if len(grid) > 2:
            raise ValueError(
                f"{runner.site} has a grid of {len(grid)} axes, but RISE masks one or two: choose Occlusion."
            )
        ones = [1] * len(grid)
        # In float64: what is left once the mean is subtracted can be small beside the sums.
        total = torch.zeros(len(values), *grid, dtype=torch.float64, device=values.device)
        coverage, whole = total.new_zeros(grid), total.new_zeros(len(values), *ones)
        masks = (self.mask(number, grid).to(values.device) for number in range(self.masks))
        ours, theirs = itertools.tee(masks)
        hidden = (self._hidden(runner, mask.to(values)) for mask in theirs)
        for mask, found in zip(ours, runner.scores_of(hidden), strict=True):
            scores = found.double().view(whole.shape)
            total, coverage, whole = total + scores * mask, coverage + mask, whole + scores
        if self.center:
            total = total - whole / self.masks * coverage
        return (total / (self.masks * self.shown)).to(values), {}

    def _hidden(self, runner: Runner, mask: Float[Tensor, "*grid"]) -> Tensor:
        values = runner.values.clone()
        seen = runner.vectors(values)
        seen.copy_(self.baseline + mask[..., None] * (seen - self.baseline))
        return values

    def mask(self, number: int, grid: tuple[int, ...]) -> Float[Tensor, "*grid"]:
        """One mask: coarse cells, grown linearly and cut at a random place."""
        draw = torch.Generator().manual_seed(int(counter_key(self.seed, _MASK, number, 0)) >> 1)
        coarse = (torch.rand([self.cells] * len(grid), generator=draw) < self.shown).float()
        # One cell larger than the grid, so that shifting by up to a cell leaves nothing uncovered.
        steps = [-(-size // self.cells) for size in grid]
        large = [(self.cells + 1) * step for step in steps]
        mode = "bilinear" if len(grid) == 2 else "linear"
        grown = functional.interpolate(coarse[None, None], size=large, mode=mode, align_corners=False)[0, 0]
        for axis, (step, size) in enumerate(zip(steps, grid, strict=True)):
            start = int(torch.randint(step, (1,), generator=draw))
            grown = grown.narrow(axis, start, size)
        return grown
