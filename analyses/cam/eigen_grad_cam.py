"""EigenGrad-CAM (Gildenblat et al. 2021, https://github.com/jacobgil/pytorch-grad-cam)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import checked
from analyses.cam.principal import Principal


@dataclass(frozen=True)
class EigenGradCAM(Principal):
    """The positions along the first principal direction of gradient times activation.

    In units of the score. The sign is the one under which a map goes along with `sum(g A)` of each position.

    Args:
        center: Subtract each channel's mean over the positions, as pytorch-grad-cam does.
        tolerance: Cosine with `sum(g A)`, below which the sign counts as undetermined.
    """

    def rows(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None
    ) -> Float[Tensor, "b n d"]:
        """Gradient times activation."""
        return (checked(self, acts, grads) * acts).flatten(1, -2)

    def reference(
        self, rows: Float[Tensor, "b n d"], acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None
    ) -> Float[Tensor, "b n"]:
        """Its sum over channels."""
        return rows.sum(dim=-1)
