"""Elementwise Grad-CAM (Gildenblat et al. 2021, https://github.com/jacobgil/pytorch-grad-cam)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked


@dataclass(frozen=True)
class ElementwiseCAM(LocalMethod):
    """The sum over channels of the positive part of gradient times activation, at each position; never negative.

    In units of the score.
    """

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        return (checked(self, acts, grads) * acts).relu().sum(dim=-1)
