"""Attention rollout (Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.patterns import checked_patterns, pattern_sites, row
from analyses.running import Runner
from interp.capturing import capture


@dataclass(frozen=True)
class AttentionRollout(ModelMethod):
    """How much of each position attention carries to the class token, through all blocks and their skips.

    In each block heads are fused to one matrix, the skip is an identity mixed into it, rows are made to sum to 1, and
    the matrices of all blocks are multiplied. So the row of a position says how a unit of it is shared among the
    positions that the first block is given. No score and no gradient is used, and at whichever site it is asked for,
    the map is that of the whole model: the site gives the grid.

    Args:
        fuse: What heads become: their `mean`, as in the paper, their `max` or `min`.
        residual: Share of the skip, at least 0 and less than 1.
        discard: Share of the smallest attentions of each row that count as 0, at least 0 and less than 1; equal ones
            stay together.
        position: Whose row it is, prefix tokens counted, from the end where negative; None for the class token, and the
            mean over all positions where a model has none.

    Raises:
        ValueError: If an argument is none of these; in use, if the model shows no patterns or the site has other
            positions than they.
    """

    attends: ClassVar[bool] = True
    scored: ClassVar[bool] = False

    fuse: Literal["mean", "max", "min"] = "mean"
    residual: float = 0.5
    discard: float = 0.0
    position: int | None = None

    def __post_init__(self) -> None:
        if self.fuse not in ("mean", "max", "min"):
            raise ValueError(f"fuse is {self.fuse!r}, but heads become one by 'mean', 'max' or 'min': choose one.")
        if not 0 <= self.residual < 1 or not 0 <= self.discard < 1:
            raise ValueError(
                f"residual is {self.residual} and discard {self.discard}, but both are shares, at least 0 and less "
                "than 1: give such numbers."
            )

    def rollout(
        self, patterns: Sequence[Float[Tensor, "b h p p"]], held: Bool[Tensor, "b p"] | None = None
    ) -> Float[Tensor, "b p p"]:
        """Shares of each position, its row, in the positions that the first block is given.

        Args:
            patterns: Of all blocks, first block first.
            held: Which positions hold data; None for all.
        """
        total = torch.eye(patterns[0].shape[-1]).to(patterns[0])
        for pattern in patterns:
            total = self.mixed(pattern, held) @ total
        return total

    def mixed(self, pattern: Float[Tensor, "b h p p"], held: Bool[Tensor, "b p"] | None) -> Float[Tensor, "b p p"]:
        """One block: heads fused, small attentions left out, the skip mixed in, rows that sum to 1."""
        if self.fuse == "mean":
            fused = pattern.mean(dim=1)
        else:
            fused = pattern.amax(dim=1) if self.fuse == "max" else pattern.amin(dim=1)
        b, p, _ = fused.shape
        if held is None:
            held = torch.ones(b, p, dtype=torch.bool)
        held = held.to(fused.device)
        fused = fused * held[:, None]
        if self.discard:
            # Padding is no attention, small as it is: it stands after the largest.
            ordered = fused.masked_fill(~held[:, None], torch.inf).sort(dim=-1).values
            lowest = (self.discard * held.sum(dim=1)).long()[:, None, None].expand(b, p, 1)
            fused = fused * (fused >= ordered.gather(2, lowest))
        whole = (1 - self.residual) * fused + self.residual * torch.eye(p).to(fused)
        sums = whole.sum(dim=-1, keepdim=True)
        return whole / torch.where(sums > 0, sums, 1)

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        model, rolled = runner.scorer.model, []
        sites = pattern_sites(model)
        for chosen in torch.arange(len(runner.examples)).split(runner.batch_size):
            found = capture(model, runner.examples.some(chosen).inputs, sites).values
            held = None if runner.held is None else runner.held[chosen.to(runner.held.device)]
            rolled.append(self.rollout(checked_patterns(found, sites), held))
        return row(runner, torch.cat(rolled), self.position), {}
