"""Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked, over_grid


@dataclass(frozen=True)
class GradCAM(LocalMethod):
    """The sum of the channels, each weighted by the mean of its gradient over the positions.

    In units of the score a position. The paper's ReLU is left to whoever shows the map.
    """

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        weights = checked(self, acts, grads).mean(dim=over_grid(acts), keepdim=True)
        return (weights * acts).sum(dim=-1)
