"""Eigen-CAM (Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import Details, LocalMethod, checked
from analyses.cam.principal import first_component


@dataclass(frozen=True)
class EigenCAM(LocalMethod):
    """The positions along the first principal direction of the layer's activations; no score needed.

    In units of the activations. A principal direction has no sign of its own: the map of activations as they are takes
    the sign under which its sum is positive, so that maps of non-negative activations are never inverted (Perron). A
    centred map sums to 0 by construction, and takes the sign under which it goes along with the one that is not.

    Args:
        center: Subtract each channel's mean over the positions, as pytorch-grad-cam does; the paper does not.
        sign: What chooses the sign: the activations, as above, or the gradient, by which a map goes along with
            `sum(g A)` of each position.
        tolerance: Cosine with what gives the sign, below which the sign counts as undetermined.
    """

    center: bool = False
    sign: Literal["activations", "gradient"] = "activations"
    tolerance: float = 1e-3
    one_channel: ClassVar[bool] = False

    @property
    def gradient(self) -> bool:  # type: ignore[override]
        """Only the sign may need it."""
        return self.sign == "gradient"

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps. Warns where a sign is undetermined."""
        return self.measured(acts, grads)[0]

    def measured(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps; the largest eigenvalue over the next (`gap`); and 1 where the sign is `determined`."""
        rows = acts.flatten(1, -2)
        component = first_component(rows - rows.mean(dim=1, keepdim=True) if self.center else rows)
        if self.gradient:
            reference = (checked(self, acts, grads) * acts).sum(dim=-1).flatten(1)
        else:
            reference = torch.ones_like(component.scores)
        if self.center and not self.gradient:
            reference = first_component(rows).along(reference)
        if self.center:
            reference = reference - reference.mean(dim=1, keepdim=True)
        return component.maps(reference, self.tolerance, tuple(acts.shape[1:-1]))
