"""Activation patching (Meng et al. 2022, https://arxiv.org/abs/2202.05262)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.baselines import Baseline, baseline_values
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True, eq=False)
class ActivationPatching(ModelMethod):
    """How much the score falls when the activations of a position are replaced by a baseline's at the same position.

    In units of the score, and positive where a position's own content raises it: the score less the patched score, as
    in Occlusion. `analyses.ledger` counts the other way, the score at the baseline less the score. The model runs once
    a position. Prefix tokens are left as they are.

    Beside each map, `whole` is the fall when all its positions are patched at once: the sum of the map where positions
    are patched alone and do not interact.

    Args:
        baseline: Inputs of the same shape, one for each example; one vector for all positions; or None for 0.
        window: Positions a side that are patched together, centred on the position: an odd number.

    Raises:
        ValueError: If the window has no centre; in use, if the baseline has another shape.
    """

    baseline: Baseline = None
    window: int = 1

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(
                f"window is {self.window}, but it is centred on a position: give an odd number of at least 1."
            )

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps, and the fall of each score when the whole map is patched."""
        base, clean = baseline_values(runner, self.baseline), runner.scores()
        grid = tuple(runner.vectors(runner.values).shape[1:-1])
        everywhere = (slice(None),) * len(grid)
        patched = (_patched(runner, base, place) for place in (*self._windows(grid), everywhere))
        *falls, whole = (clean - scores for scores in runner.scores_of(patched))
        return torch.stack(falls, dim=1).view(-1, *grid), {"whole": whole}

    def _windows(self, grid: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        half = self.window // 2
        for centre in itertools.product(*map(range, grid)):
            yield tuple(slice(max(at - half, 0), at + half + 1) for at in centre)


def _patched(runner: Runner, base: Tensor, place: tuple[slice, ...]) -> Tensor:
    values = runner.values.clone()
    runner.vectors(values)[(slice(None), *place)] = runner.vectors(base)[(slice(None), *place)]
    return values
