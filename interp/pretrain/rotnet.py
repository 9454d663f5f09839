"""RotNet (Gidaris et al. 2018, https://arxiv.org/abs/1803.07728)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from interp.models.glyph_encoders import GlyphEncoder
from interp.pretrain.base import Objective


class RotNet(Objective):
    """Say by which quarter turns an image was rotated.

    Args:
        encoder: What is trained.
    """

    views = 1

    def __init__(self, encoder: GlyphEncoder) -> None:
        super().__init__()
        self.arguments = {}
        self.head = nn.Linear(encoder.d_pooled, 4)

    def projected(self, pooled: Float[Tensor, "b d_pooled"]) -> list[Float[Tensor, "b d_layer"]]:
        """The four scores."""
        return [self.head(pooled)]

    def loss(
        self, encoder: GlyphEncoder, batch: Float[Tensor, "1 b 1 s s"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the four scores, mean over all four copies of each image."""
        images, turns = rotations(batch[0])
        return F.cross_entropy(self.head(encoder(images).pooled), turns)


def rotations(images: Float[Tensor, "b c s s"]) -> tuple[Float[Tensor, "four_b c s s"], Int[Tensor, " four_b"]]:
    """Four copies of a batch, one after the other, and the quarter turns of each image.

    Args:
        images: Square images.
    """
    copies = torch.cat([torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)])
    return copies, torch.arange(4, device=images.device).repeat_interleave(len(images))
