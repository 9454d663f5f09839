"""Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True)
class IntegratedGradients(ModelMethod):
    """What each position adds to the score on the straight way from a baseline, summed over channels.

    In units of the score: a map adds up to the change of the score, but for the error of the quadrature, which is
    reported as `gap`: the sum of the map less the change.

    Args:
        steps: Points of a Gauss-Legendre quadrature.
        baseline: What all activations are at the start.

    Raises:
        ValueError: If there is less than one step.
    """

    steps: int = 50
    baseline: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, but an integral needs a point: give at least 1 (50, say).")

    def attributions(self, runner: Runner) -> Tensor:
        """Mean gradient on the way times the way, as the model makes the activations."""
        way = runner.values - self.baseline
        places, weights = np.polynomial.legendre.leggauss(self.steps)
        on_the_way = (self.baseline + (1 + float(place)) / 2 * way for place in places)
        total = torch.zeros_like(way)
        for weight, grads in zip(weights, runner.gradients_of(on_the_way), strict=True):
            total += float(weight) / 2 * grads
        return total * way

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps and their gaps."""
        found = self.attributions(runner)
        change = runner.scores() - runner.scores(torch.full_like(runner.values, self.baseline))
        return runner.vectors(found).sum(dim=-1), {"gap": found.flatten(1).sum(dim=1) - change}
