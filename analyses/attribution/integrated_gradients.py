"""Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.baselines import Baseline, baseline_values
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True, eq=False)
class IntegratedGradients(ModelMethod):
    """What each position adds to the score on the straight way from a baseline, summed over channels.

    In units of the score: a map adds up to the change of the score, but for the error of the quadrature, which is
    reported as `gap`: the sum of the map less the change.

    A layer norm forgets how large a vector is. On the way from 0 to the activations before one, all of the change lies
    in a jump at 0, which no number of steps resolves, and the gap stays: give another baseline there.

    Args:
        steps: Points of a Gauss-Legendre quadrature.
        baseline: What activations are at the start: a number, one vector for all positions (their mean, say), or other
            inputs of the same shape.

    Raises:
        ValueError: If there is less than one step; in use, if the baseline has another shape.
    """

    steps: int = 50
    baseline: Baseline = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, but an integral needs a point: give at least 1 (50, say).")

    def attributions(self, runner: Runner) -> Tensor:
        """Mean gradient on the way times the way, as the model makes the activations."""
        base = baseline_values(runner, self.baseline)
        way = runner.values - base
        places, weights = np.polynomial.legendre.leggauss(self.steps)
        on_the_way = (base + (1 + float(place)) / 2 * way for place in places)
        total = torch.zeros_like(way)
        for weight, grads in zip(weights, runner.gradients_of(on_the_way), strict=True):
            total += float(weight) / 2 * grads
        return total * way

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps and their gaps."""
        found = self.attributions(runner)
        change = runner.scores() - runner.scores(baseline_values(runner, self.baseline))
        return runner.vectors(found).sum(dim=-1), {"gap": found.flatten(1).sum(dim=1) - change}
