"""LOST (Simeoni et al. 2021, https://arxiv.org/abs/2109.14279)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.segmentation.base import Objects, Segmenter, alone, component


@dataclass(frozen=True)
class LOST(Segmenter):
    """What goes along with the position that goes along with the fewest others.

    The seed is the position with the lowest degree, which is how many others its inner product is positive with. It
    is joined by those of the `patches` lowest degrees whose product with it is positive. The saliency is the summed
    product with all of these, in units of the activations squared; the object is where it is positive, connected in
    the grid with the seed. Detail: `degree`, of the seed, as a share of the other positions. Where all positions
    have the same degree none is a seed, and no object is given.

    Args:
        patches: How many of the lowest degrees may join the seed; the paper takes 100 of some 1000 positions.

    Raises:
        ValueError: If `patches` is under 1.
    """

    patches: int = 100

    def __post_init__(self) -> None:
        if self.patches < 1:
            raise ValueError(f"patches is {self.patches}, but the seed is one of them: give 1 or more.")

    def segments(self, acts: Float[Tensor, "b *grid d"]) -> Objects:
        """The objects of activations that are finite."""
        rows = acts.flatten(1, -2).double()
        products = rows @ rows.mT
        n = rows.shape[1]
        others = ~torch.eye(n, dtype=torch.bool, device=rows.device)
        degrees = ((products > 0) & others).sum(dim=-1)
        order = degrees.argsort(dim=1, stable=True)
        seeds = order[:, 0]
        with_seed = products[torch.arange(len(rows), device=rows.device), seeds]
        low = torch.zeros_like(others[:1]).expand(len(rows), -1).scatter(1, order[:, : self.patches], True)
        joined = low & (with_seed > 0)
        correlation = (products * joined[:, :, None]).sum(dim=1)
        found = degrees.amin(dim=1) < degrees.amax(dim=1)
        masks = component(correlation > 0, seeds, tuple(acts.shape[1:-1])) & found[:, None]
        return alone(masks, correlation, {"degree": degrees.amin(dim=1) / max(n - 1, 1)}, acts)
