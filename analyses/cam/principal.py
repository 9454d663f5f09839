"""The first principal component of the positions of each example, and the choice of its sign."""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import Details


class UndeterminedSign(UserWarning):
    """A principal component whose sign nothing decides: its map may as well be its negative."""


@dataclass(frozen=True)
class Component:
    """The positions of each example along its first principal direction, its sign not yet chosen.

    Args:
        scores: Each position's coordinate: `O v` of the leading right singular vector.
        gap: Largest eigenvalue of the Gram matrix over the next; infinite where there is one alone, 1 where all are 0.
    """

    scores: Float[Tensor, "b n"]
    gap: Float[Tensor, " b"]

    def along(self, reference: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The coordinates with the sign that makes their inner product with a reference positive."""
        return torch.where((self.scores * reference).sum(dim=1, keepdim=True) < 0, -self.scores, self.scores)

    def maps(
        self, reference: Float[Tensor, "b n"], tolerance: float, grid: tuple[int, ...]
    ) -> tuple[Float[Tensor, " b *grid"], Details]:
        """Maps that point along a reference, the gap, and where the reference decided the sign.

        Args:
            reference: What the maps should point along.
            tolerance: The smallest cosine that decides, either way.
            grid: The positions' layout.
        """
        maps = self.along(reference)
        sizes = maps.norm(dim=1) * reference.norm(dim=1)
        # A map of zeros has no sign to choose.
        determined = ((maps * reference).sum(dim=1) > tolerance * sizes) | (self.scores == 0).all(dim=1)
        if not determined.all():
            warnings.warn(
                f"the sign of {int((~determined).sum())} of {len(maps)} maps is undetermined: nothing tells such a map "
                "from its negative. Look at both, or take the sign from a gradient.",
                UndeterminedSign,
                stacklevel=4,
            )
        return maps.reshape(len(maps), *grid), {"gap": self.gap, "determined": determined.to(maps.dtype)}


def first_component(values: Float[Tensor, "b n d"]) -> Component:
    """The first principal component of the rows of each example, as they are: centre them before if they should be."""
    n, d = values.shape[1:]
    gram = values @ values.mT if n <= d else values.mT @ values
    sizes, vectors = torch.linalg.eigh(gram)
    first = sizes[:, -1].clamp(min=0)
    second = sizes[:, -2].clamp(min=0) if sizes.shape[1] > 1 else torch.zeros_like(first)
    leading = vectors[..., -1]
    scores = leading * first.sqrt()[:, None] if n <= d else (values @ leading[..., None]).squeeze(-1)
    return Component(scores, torch.where(first > 0, first / second, torch.ones_like(first)))
