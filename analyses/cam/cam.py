"""Class activation mapping (Zhou et al. 2016, https://arxiv.org/abs/1512.04150)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked, over_grid


@dataclass(frozen=True)
class CAM(LocalMethod):
    """The sum of the channels, weighted by the linear layer that reads their average over the positions.

    In units of the score: the mean of a map is the score without the linear layer's bias. The weights are taken from
    the gradient, which under average pooling and a linear layer is the same at all positions; elsewhere the method
    does not exist.

    Args:
        tolerance: How far the gradient of a channel may move over the positions, as a part of the largest gradient.
    """

    tolerance: float = 1e-4

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps.

        Raises:
            ValueError: If the gradient of a channel differs between positions.
        """
        grads, axes = checked(self, acts, grads), over_grid(acts)
        spread = (grads.amax(dim=axes) - grads.amin(dim=axes)).amax(dim=-1)
        moved = spread > self.tolerance * grads.abs().amax(dim=(*axes, -1))
        if moved.any():
            raise ValueError(
                f"the gradient of a channel moves by {float(spread[moved].amax()):.3g} over the positions, but CAM is "
                "for the layer before average pooling and a linear layer, where it is constant: choose that layer, or "
                "GradCAM or HiResCAM for this one."
            )
        return (grads.sum(dim=axes, keepdim=True) * acts).sum(dim=-1)
