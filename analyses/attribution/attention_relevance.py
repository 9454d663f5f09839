"""Relevance of attention (Chefer et al. 2021, https://arxiv.org/abs/2103.15679)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.patterns import checked_patterns, pattern_sites, row
from analyses.running import Runner


@dataclass(frozen=True)
class AttentionRelevance(ModelMethod):
    """How much of each position attention carries to the class token, where that raises the score.

    In each block, attention times its gradient is averaged over heads, what lowers the score left out, and passed on
    through the relevance that earlier blocks gave. Each position's relevance to itself, with which the first block
    begins, is not on the map. It is never negative; of one block it is in units of the score, of several it is no unit
    of its own. At whichever site it is asked for, the map is that of the whole model: the site gives the grid.

    Args:
        position: Whose row it is, prefix tokens counted, from the end where negative; None for the class token, and the
            mean over all positions where a model has none.

    Raises:
        ValueError: In use, if the model shows no patterns, or the site has other positions than they.
    """

    attends: ClassVar[bool] = True

    position: int | None = None

    def relevance(
        self, patterns: Sequence[Float[Tensor, "b h p p"]], grads: Sequence[Float[Tensor, "b h p p"]]
    ) -> Float[Tensor, "b p p"]:
        """Relevance to each position, its row, of the positions that the first block is given: less the identity.

        Args:
            patterns: Of all blocks, first block first.
            grads: The gradient of each example's score at each.
        """
        total = torch.zeros_like(patterns[0][:, 0])
        for pattern, grad in zip(patterns, grads, strict=True):
            own = (grad * pattern).relu().mean(dim=1)
            total = total + own + own @ total
        return total

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        sites, found = pattern_sites(runner.scorer.model), []
        for chunk in runner.examples.chunks(runner.batch_size):
            seen = runner.scorer.run(chunk, sites)
            found.append(self.relevance(checked_patterns(seen.values, sites), [seen.grads[site] for site in sites]))
        return row(runner, torch.cat(found), self.position), {}
