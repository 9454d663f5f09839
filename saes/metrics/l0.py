"""L0: how many features a row fires."""

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.base import RowMetric, Rows


class L0(RowMetric):
    """Codes that are not zero, averaged over rows."""

    name = "l0"

    def statistics(self, rows: Rows) -> Float[Tensor, "n 2"]:
        """Codes of each row, and 1."""
        counts = rows.latents.offsets.diff().double()
        return torch.stack([counts, torch.ones_like(counts)], dim=1)

    def value(self, totals: Float[Tensor, "*resamples 2"]) -> Float[Tensor, "*resamples"]:
        """Their ratio."""
        return totals[..., 0] / totals[..., 1]
