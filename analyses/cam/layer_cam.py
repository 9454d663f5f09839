"""LayerCAM (Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked


@dataclass(frozen=True)
class LayerCAM(LocalMethod):
    """The sum of the channels, each weighted at each position by the positive part of its gradient there.

    In units of the score. The paper's ReLU on the sum is left to whoever shows the map.
    """

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        return (checked(self, acts, grads).relu() * acts).sum(dim=-1)
