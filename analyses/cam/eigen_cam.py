"""Eigen-CAM (Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import checked
from analyses.cam.principal import Principal, first_component


@dataclass(frozen=True)
class EigenCAM(Principal):
    """The positions along the first principal direction of the layer's activations; no score needed.

    In units of the activations. A principal direction has no sign of its own: the map of activations as they are takes
    the sign under which its sum is positive, so that maps of non-negative activations are never inverted (Perron). A
    centred map sums to 0 by construction, and takes the sign under which it goes along with the one that is not.

    Args:
        center: Subtract each channel's mean over the positions, as pytorch-grad-cam does; the paper does not.
        tolerance: Cosine with what gives the sign, below which the sign counts as undetermined.
        sign: What chooses the sign: the activations, as above, or the gradient, by which a map goes along with
            `sum(g A)` of each position.
    """

    sign: Literal["activations", "gradient"] = "activations"

    @property
    def gradient(self) -> bool:  # type: ignore[override]
        """Only the sign may need it."""
        return self.sign == "gradient"

    def rows(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None
    ) -> Float[Tensor, "b n d"]:
        """The activations."""
        return acts.flatten(1, -2)

    def reference(
        self, rows: Float[Tensor, "b n d"], acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None
    ) -> Float[Tensor, "b n"]:
        """Gradient times activation; or 1, and for a centred map the one that is not."""
        if self.gradient:
            return (checked(self, acts, grads) * acts).sum(dim=-1).flatten(1)
        ones = torch.ones_like(rows[..., 0])
        return first_component(rows).along(ones) if self.center else ones
