"""Ablation-CAM (Desai and Ramaswamy 2020, https://doi.org/10.1109/WACV45572.2020.9093360)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True)
class AblationCAM(ModelMethod):
    """The sum of the channels, each weighted by how much the score falls when it is set to 0 everywhere.

    In units of the score times those of the activations. Runs the model once a channel.

    Args:
        relative: Divide the fall by the score, as the paper does, which turns the map where a score is negative.
    """

    relative: bool = False

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        acts, base = runner.vectors(runner.values), runner.scores()
        falls = base[:, None] - torch.stack(list(runner.scores_of(self._without(runner, acts.shape[-1]))), dim=1)
        if self.relative:
            falls = torch.where(base[:, None] != 0, falls / base[:, None], 0)
        return torch.einsum("bd,b...d->b...", falls.to(acts), acts), {}

    def _without(self, runner: Runner, channels: int) -> Iterator[Tensor]:
        for channel in range(channels):
            values = runner.values.clone()
            runner.vectors(values)[..., channel] = 0
            yield values
