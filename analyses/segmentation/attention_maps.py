"""Attention of the class token (DINO, Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.segmentation.base import Objects, Segmenter


@dataclass(frozen=True)
class AttentionMaps(Segmenter):
    """The fewest positions that hold a share of what the class token attends to.

    The saliency is the attention to each position, as a share of that to all positions. Positions attended to alike
    stand and fall together; where all are, no object is given. Detail: `attended`, the attention that all positions
    get together; the rest goes to the class token itself and its kin.

    Args:
        mass: The share, above 0 and under 1.
        per_head: Give an object for each head, rather than one for their mean.

    Raises:
        ValueError: If `mass` is out of range.
    """

    mass: float = 0.6
    per_head: bool = False
    reads: ClassVar[Literal["vectors", "patterns"]] = "patterns"

    def __post_init__(self) -> None:
        if not 0 < self.mass < 1:
            raise ValueError(f"mass is {self.mass}, but is a share of the attention: give a number in 0..1, as .6.")

    def segments(self, acts: Float[Tensor, "b *grid d"]) -> Objects:
        """The objects of attention that is finite.

        Raises:
            ValueError: If some is negative.
        """
        if bool((acts < 0).any()):
            raise ValueError(
                f"acts has {float(acts.min()):.3g}, but attention is never negative: give a pattern "
                "(blocks.N.attn.hook_pattern), or choose a method that reads vectors (TokenCut)."
            )
        given = acts.double().movedim(-1, 1)
        given = given if self.per_head else given.mean(dim=1, keepdim=True)
        flat = given.flatten(2)
        total = flat.sum(dim=-1, keepdim=True)
        shares = torch.where(total > 0, flat / total, 0)
        ranked = shares.sort(dim=-1, descending=True).values
        before = ranked.cumsum(dim=-1) - ranked
        # Shares summed in another order differ in their last bits, which must not cost or win a position.
        least = ranked.where(before < self.mass - 1e-12, 1).amin(dim=-1, keepdim=True)
        alike = shares.amax(dim=-1) - shares.amin(dim=-1) <= 1e-12
        masks = (shares >= least - 1e-12) & ~alike[..., None]
        details = {"attended": total[..., 0].to(acts.dtype)}
        return Objects(masks.view(given.shape), shares.view(given.shape).to(acts.dtype), details)
