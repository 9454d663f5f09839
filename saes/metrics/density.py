"""Density: how often features fire."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import Latents
from saes.metrics.base import RowMetric, Rows


def firing_counts(latents: Latents) -> Int[Tensor, " d_sae"]:
    """Rows in which each feature fires; divided by the number of rows, its density."""
    return torch.bincount(latents.indices, minlength=latents.d_sae)


class Density(RowMetric):
    """Fraction of rows in which a feature fires, averaged over features: L0 over the number of features."""

    name = "density"

    def statistics(self, rows: Rows) -> Float[Tensor, "n 2"]:
        """Fraction of the features that fire in each row, and 1."""
        fraction = rows.latents.offsets.diff().double() / rows.latents.d_sae
        return torch.stack([fraction, torch.ones_like(fraction)], dim=1)

    def value(self, totals: Float[Tensor, "*resamples 2"]) -> Float[Tensor, "*resamples"]:
        """Their ratio."""
        return totals[..., 0] / totals[..., 1]
