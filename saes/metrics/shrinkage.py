"""Shrinkage: reconstructions that are too short (Rajamanoharan et al. 2024, https://arxiv.org/abs/2404.16014)."""

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.base import RowMetric, Rows


class Shrinkage(RowMetric):
    """The factor that, applied to all codes at once, would bring the reconstructions nearest to the rows.

    Least squares: sum (x - o)·(x' - o) / sum ||x' - o||^2, with x' the reconstruction and o the decoder's bias, which
    codes do not scale. 1 is unbiased; above 1 the codes are shrunk, as an L1 penalty shrinks them. The inverse of the
    paper's relative reconstruction bias, but for the bias, which the paper leaves in.
    """

    name = "shrinkage"

    def statistics(self, rows: Rows) -> Float[Tensor, "n 2"]:
        """The two inner products of each row."""
        recon = rows.recon.double() - rows.origin
        return torch.stack([((rows.x.double() - rows.origin) * recon).sum(1), recon.square().sum(1)], dim=1)

    def value(self, totals: Float[Tensor, "*resamples 2"]) -> Float[Tensor, "*resamples"]:
        """Their ratio; undefined (NaN) where nothing fires."""
        return totals[..., 0] / totals[..., 1]
