"""FVU: the fraction of variance that a reconstruction leaves unexplained."""

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.base import RowMetric, Rows


class FVU(RowMetric):
    """Squared error over squared deviation from the evaluation's mean: one ratio of two sums over all rows.

    0 is perfect, 1 is as good as the mean. The mean stays fixed when examples are resampled.
    """

    name = "fvu"

    def statistics(self, rows: Rows) -> Float[Tensor, "n 2"]:
        """Squared error and squared deviation of each row."""
        x = rows.x.double()
        return torch.stack([(x - rows.recon).square().sum(1), (x - rows.mean).square().sum(1)], dim=1)

    def value(self, totals: Float[Tensor, "*resamples 2"]) -> Float[Tensor, "*resamples"]:
        """Their ratio."""
        return totals[..., 0] / totals[..., 1]
