"""Grad-CAM++ (Chattopadhyay et al. 2018, https://arxiv.org/abs/1710.11063)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked, over_grid


@dataclass(frozen=True)
class GradCAMPlusPlus(LocalMethod):
    """The sum of the channels, each weighted by its positive gradients, and these by how few positions share them.

    The closed form of the paper's eq. 19, which takes the exponential of the score for the score: a position's part
    is `g² / (2 g² + sum(A) g³)`. It has no units.

    Args:
        eps: Added to the denominator, as in the reference implementation.
    """

    eps: float = 1e-6

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        grads = checked(self, acts, grads)
        squares = grads.square()
        denominator = 2 * squares + acts.sum(dim=over_grid(acts), keepdim=True) * squares * grads + self.eps
        # Signed activations can bring the denominator to exactly 0, and a gradient of 0 has no part.
        parts = torch.where((grads != 0) & (denominator != 0), squares / denominator, 0)
        weights = (grads.relu() * parts).sum(dim=over_grid(acts), keepdim=True)
        return (weights * acts).sum(dim=-1)
