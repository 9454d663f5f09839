"""The margin of a nearest-neighbour vote (Wu et al. 2018, https://arxiv.org/abs/1805.01978)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.scores.base import Pass, Score


@dataclass(frozen=True, eq=False)
class KNNMargin(Score):
    """Mean cosine of each example to its nearest members of a group, less that to its nearest others.

    Args:
        bank: Embeddings of known examples.
        member: Which of them belong to the group.
        k: Neighbours on each side.

    Raises:
        ValueError: If either side has fewer than `k` examples; in use, if the bank has another width.
    """

    bank: Float[Tensor, "m d"]
    member: Bool[Tensor, " m"]
    k: int = 10

    def __post_init__(self) -> None:
        sides = int(self.member.sum()), int((~self.member).sum())
        if self.k < 1 or self.k > min(sides):
            raise ValueError(
                f"k is {self.k}, but the bank has {sides[0]} members and {sides[1]} others: choose k in 1.."
                f"{max(min(sides), 1)}, or give a larger bank."
            )

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The margins. Which neighbours are nearest is held fixed in gradients, as a maximum's place is."""
        embedding = torch.nn.functional.normalize(run.embedding(), dim=1)
        bank = torch.nn.functional.normalize(self.bank.detach().to(embedding), dim=1)
        if bank.shape[1] != embedding.shape[1]:
            raise ValueError(
                f"bank has width {bank.shape[1]}, but {run.model.name} embeds in {embedding.shape[1]}: make it with "
                "the same model."
            )
        near, far = (
            (embedding @ bank[side.to(bank.device)].T).topk(self.k, dim=1).values.mean(dim=1)
            for side in (self.member, ~self.member)
        )
        return near - far
