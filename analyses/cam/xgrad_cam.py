"""XGrad-CAM (Fu et al. 2020, https://arxiv.org/abs/2008.02312)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked, over_grid


@dataclass(frozen=True)
class XGradCAM(LocalMethod):
    """The sum of the channels, each weighted by the mean of its gradient, positions weighted by their activations.

    In units of the score: a map adds up to `sum(g A)`, as HiResCAM does (the paper's axiom of conservation), but for
    channels whose activations cancel.

    Args:
        tolerance: A channel whose activations sum to less than this part of the sum of their sizes has no weighted
            mean, as can happen with signed activations; its plain mean stands in.
    """

    tolerance: float = 1e-6

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        grads, axes = checked(self, acts, grads), over_grid(acts)
        total, size = acts.sum(dim=axes, keepdim=True), acts.abs().sum(dim=axes, keepdim=True)
        defined = total.abs() > self.tolerance * size
        weighted = (grads * acts).sum(dim=axes, keepdim=True) / torch.where(defined, total, 1)
        weights = torch.where(defined, weighted, grads.mean(dim=axes, keepdim=True))
        return (weights * acts).sum(dim=-1)
