"""Barlow Twins (Zbontar et al. 2021, https://arxiv.org/abs/2103.03230)."""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.glyph_encoders import GlyphEncoder
from interp.pretrain.base import TwoViews


class BarlowTwins(TwoViews):
    """Make the cross-correlation of two views' embeddings the identity.

    Args:
        encoder: What is trained.
        d_hidden: Width of the head's hidden layers.
        d_out: Width of the embeddings that are correlated.
        layers: Linear layers of the head.
        redundancy: Weight of the off-diagonal terms; None for 1 / d_out, which keeps their sum in proportion.
    """

    def __init__(
        self,
        encoder: GlyphEncoder,
        *,
        d_hidden: int = 512,
        d_out: int = 512,
        layers: int = 3,
        redundancy: float | None = None,
    ) -> None:
        super().__init__(encoder, d_hidden=d_hidden, d_out=d_out, layers=layers, redundancy=redundancy)
        self.redundancy = 1 / d_out if redundancy is None else redundancy

    def compared(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """`barlow_twins_loss` of the two views' heads."""
        return barlow_twins_loss(first, second, self.redundancy)


def barlow_twins_loss(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], redundancy: float
) -> Float[Tensor, ""]:
    """Sum over features of (1 - C_ii)^2, plus `redundancy` times the sum of C_ij^2 over i != j.

    Args:
        first: Embeddings of one view.
        second: Embeddings of the other.
        redundancy: Lambda of the paper.
    """
    correlation = cross_correlation(first, second)
    on = torch.diagonal(correlation)
    off = correlation.square().sum() - on.square().sum()
    return (1 - on).square().sum() + redundancy * off


def cross_correlation(
    first: Float[Tensor, "n d"], second: Float[Tensor, "n e"], *, eps: float = 1e-5
) -> Float[Tensor, "d e"]:
    """Correlation over the rows of each feature with each other; 0 where a feature is constant.

    Args:
        first: Embeddings of one view.
        second: Embeddings of the other.
        eps: Added to each variance, in squared units of the embeddings (batch norm's).
    """
    return _standardised(first, eps).T @ _standardised(second, eps) / len(first)


def _standardised(rows: Float[Tensor, "n d"], eps: float) -> Float[Tensor, "n d"]:
    centred = rows - rows.mean(dim=0)
    return centred * (centred.square().mean(dim=0) + eps).rsqrt()
