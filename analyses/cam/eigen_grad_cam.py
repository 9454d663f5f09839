"""EigenGrad-CAM (Gildenblat et al. 2021, https://github.com/jacobgil/pytorch-grad-cam)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import Details, LocalMethod, checked
from analyses.cam.principal import first_component


@dataclass(frozen=True)
class EigenGradCAM(LocalMethod):
    """The positions along the first principal direction of gradient times activation.

    In units of the score. The sign is the one under which a map goes along with `sum(g A)` of each position.

    Args:
        center: Subtract each channel's mean over the positions, as pytorch-grad-cam does.
        tolerance: Cosine with `sum(g A)`, below which the sign counts as undetermined.
    """

    center: bool = False
    tolerance: float = 1e-3
    one_channel: ClassVar[bool] = False

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps. Warns where a sign is undetermined."""
        return self.measured(acts, grads)[0]

    def measured(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps; the largest eigenvalue over the next (`gap`); and 1 where the sign is `determined`."""
        rows = (checked(self, acts, grads) * acts).flatten(1, -2)
        if self.center:
            rows = rows - rows.mean(dim=1, keepdim=True)
        return first_component(rows).maps(rows.sum(dim=-1), self.tolerance, tuple(acts.shape[1:-1]))
