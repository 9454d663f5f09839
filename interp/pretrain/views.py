"""Views of glyphs: one code point in two fonts, each shifted, scaled and rotated."""

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from interp.data.glyphs import Glyphs
from interp.stores.shuffling import counter_key

_BATCHES = 0x71E75


class GlyphViews:
    """Batches of views; the batch of a step is a function of (seed, step).

    Args:
        glyphs: Where the images come from.
        degrees: Largest rotation to either side.
        scale: Largest factor by which a view grows or shrinks, at least 1.
        shift: Largest shift along each axis, in pixels.
        seed: Names the batches.
    """

    def __init__(self, glyphs: Glyphs, *, degrees: float, scale: float, shift: float, seed: int) -> None:
        self.images: UInt8[Tensor, "n s s"] = glyphs.images
        self.degrees, self.scale, self.shift, self.seed = degrees, scale, shift, seed
        self._rows, self._counts = grouped(glyphs.labels("codepoint"))

    def batch(self, step: int, size: int, views: int) -> Float[Tensor, "v b 1 s s"]:
        """Draw code points without replacement, and as many fonts of each as views: different ones where it has them.

        Args:
            step: Which batch.
            size: Code points, as many at most as there are.
            views: Views of each.

        Raises:
            ValueError: If there are fewer code points than `size`.
        """
        if size > len(self._counts):
            raise ValueError(f"batch_size is {size}, but there are {len(self._counts)} code points: give at most that.")
        generator = seeded(self.seed, _BATCHES, step)
        points = torch.randperm(len(self._counts), generator=generator)[:size]
        counts = self._counts[points]
        ranks = torch.rand(size, self._rows.shape[1], generator=generator)
        ranks = ranks.masked_fill(torch.arange(self._rows.shape[1]) >= counts[:, None], -1)
        fonts = ranks.argsort(dim=1, descending=True).gather(1, torch.arange(views) % counts[:, None])
        rows = self._rows[points[:, None], fonts].T.flatten()
        images = as_input(self.images[rows])
        return moved(images, self.degrees, self.scale, self.shift, generator).unflatten(0, (views, size))


def as_input(images: UInt8[Tensor, "b s s"]) -> Float[Tensor, "b 1 s s"]:
    """Ink from 0 to 1, with the axis of channels."""
    return images[:, None].float() / 255


def moved(
    images: Float[Tensor, "b 1 s s"], degrees: float, scale: float, shift: float, generator: torch.Generator
) -> Float[Tensor, "b 1 s s"]:
    """Rotate, scale and shift each image by amounts uniform in their ranges (for the scale, their logarithm is).

    Args:
        images: Square images.
        degrees: Largest rotation to either side.
        scale: Largest factor by which an image grows or shrinks, at least 1.
        shift: Largest shift along each axis, in pixels.
        generator: Draws the amounts.
    """
    draws = torch.rand(4, len(images), generator=generator) * 2 - 1
    return affine(images, draws[0] * degrees, scale ** draws[1], draws[2:].T * shift)


def grouped(labels: list[str]) -> tuple[Int[Tensor, "points most"], Int[Tensor, " points"]]:
    """Rows of each label in order of appearance, padded with the first, and how many there are."""
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    most = max(map(len, rows.values()))
    padded = [group + [group[0]] * (most - len(group)) for group in rows.values()]
    return torch.tensor(padded), torch.tensor([len(group) for group in rows.values()])


def affine(
    images: Float[Tensor, "b 1 s s"],
    degrees: Float[Tensor, " b"],
    scale: Float[Tensor, " b"],
    shift: Float[Tensor, "b 2"],
) -> Float[Tensor, "b 1 s s"]:
    """Rotate and scale each image about its middle, then shift it; what comes in from outside is 0.

    Args:
        images: Square images.
        degrees: Counter-clockwise.
        scale: Above 1 makes larger.
        shift: Right and down, in pixels.
    """
    angle = degrees * (math.pi / 180)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # From places of the output to places of the input, in half sides: x' = R^-1 (x - t) / scale.
    x, y = (shift * (2 / images.shape[-1])).unbind(dim=1)
    inverse = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(inverse, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def seeded(*counters: int) -> torch.Generator:
    """A generator that is a function of counters (seed, purpose, step)."""
    return torch.Generator().manual_seed(int(counter_key(*counters)) >> 1)
