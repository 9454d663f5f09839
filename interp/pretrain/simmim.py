"""SimMIM (Xie et al. 2022, https://arxiv.org/abs/2111.09886)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from interp.models.glyph_encoders import SIZE, GlyphEncoder
from interp.pretrain.base import Objective


class SimMIM(Objective):
    """Paint masked patches from the others, with one linear layer on the map.

    The mask token is a learned patch of pixels, so that it reaches any encoder through its own first layer.

    Args:
        encoder: What is trained.
        ratio: Share of the patches that is masked, between 0 and 1.
        patch: Side of a masked patch, in pixels; it divides 32.

    Raises:
        ValueError: If `ratio` or `patch` is out of range.
    """

    views = 1

    def __init__(self, encoder: GlyphEncoder, *, ratio: float = 0.6, patch: int = 4) -> None:
        super().__init__()
        if not 0 < ratio < 1:
            raise ValueError(f"ratio is {ratio}, but some patches are masked and some are not: give one in (0, 1).")
        if patch < 1 or SIZE % patch:
            raise ValueError(f"patch is {patch}, but patches tile {SIZE} pixels: give a divisor of {SIZE}.")
        self.arguments = {"ratio": ratio, "patch": patch}
        self.ratio, self.patch = ratio, patch
        self.token = nn.Parameter(torch.zeros(patch, patch))
        side = encoder.side
        self.head = nn.Conv2d(encoder.d_map, (SIZE // side) ** 2, kernel_size=1)

    def loss(
        self, encoder: GlyphEncoder, batch: Float[Tensor, "1 b 1 s s"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """`masked_l1` of images painted from what the mask leaves."""
        images = batch[0]
        tiles = SIZE // self.patch
        mask = random_mask(len(images), tiles, self.ratio, generator).to(images.device)
        mask = mask.repeat_interleave(self.patch, dim=2).repeat_interleave(self.patch, dim=3)
        hidden = torch.where(mask, self.token.tile(tiles, tiles), images)
        painted = F.pixel_shuffle(self.head(encoder(hidden).map), SIZE // encoder.side)
        return masked_l1(painted, images, mask)


def random_mask(b: int, tiles: int, ratio: float, generator: torch.Generator) -> Bool[Tensor, "b 1 tiles tiles"]:
    """Mask the same number of patches in each image, drawn without replacement.

    Args:
        b: Images.
        tiles: Patches an axis.
        ratio: Share of the patches that is masked, rounded to whole patches.
        generator: On the CPU.
    """
    ranks = torch.rand(b, tiles * tiles, generator=generator).argsort(dim=1).argsort(dim=1)
    return (ranks < round(ratio * tiles * tiles)).view(b, 1, tiles, tiles)


def masked_l1(
    painted: Float[Tensor, "b c s s"], images: Float[Tensor, "b c s s"], mask: Bool[Tensor, "b c s s"]
) -> Float[Tensor, ""]:
    """Mean absolute error over the masked pixels.

    Args:
        painted: What the head gives.
        images: What should be there.
        mask: True where a pixel was masked.
    """
    return ((painted - images).abs() * mask).sum() / mask.sum()
