"""SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709) with the deeper head of v2 (2006.10029)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from interp.models.glyph_encoders import GlyphEncoder
from interp.pretrain.base import TwoViews


class SimCLR(TwoViews):
    """Tell the other view of a code point from all other images of the batch.

    SimCLRv2 reads features from a middle layer of the head: `projected` gives them all.

    Args:
        encoder: What is trained.
        d_hidden: Width of the head's hidden layers.
        d_out: Width of the embeddings that are compared.
        layers: Linear layers of the head.
        temperature: Divides the cosines.
    """

    def __init__(
        self,
        encoder: GlyphEncoder,
        *,
        d_hidden: int = 512,
        d_out: int = 128,
        layers: int = 3,
        temperature: float = 0.2,
    ) -> None:
        super().__init__(encoder, d_hidden=d_hidden, d_out=d_out, layers=layers, temperature=temperature)
        self.temperature = temperature

    def compared(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """`nt_xent` of the two views' heads."""
        return nt_xent(first, second, self.temperature)


def nt_xent(first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy, mean over the 2b images, of the softmax of cosines to all 2b - 1 others.

    Args:
        first: Embeddings of one view.
        second: Embeddings of the other; row i is the positive of row i.
        temperature: Divides the cosines.
    """
    b = len(first)
    rows = F.normalize(torch.cat([first, second]), dim=1)
    cosines = rows @ rows.T / temperature
    cosines = cosines.masked_fill(torch.eye(2 * b, dtype=torch.bool, device=rows.device), -torch.inf)
    return F.cross_entropy(cosines, torch.arange(2 * b, device=rows.device).roll(b))
