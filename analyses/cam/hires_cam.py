"""HiResCAM (Draelos and Carin 2020, https://arxiv.org/abs/2011.08891)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked


@dataclass(frozen=True)
class HiResCAM(LocalMethod):
    """The sum over channels of gradient times activation, at each position.

    In units of the score: where what follows the layer is linear without a bias, a map adds up to it. It is Grad-CAM
    where the gradient of a channel is the same at all positions (average pooling and a linear layer follow).
    """

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        return (checked(self, acts, grads) * acts).sum(dim=-1)
