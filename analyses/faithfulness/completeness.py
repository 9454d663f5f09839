"""Completeness (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge
from analyses.passes import Examples, Scorer
from analyses.running import Runner


@dataclass(frozen=True)
class Completeness(Judge):
    """How far the sum of a map is from the change of the score when all activations of its site go to a baseline.

    In units of the score; 0 for a map that accounts for all of it. What prefix tokens contribute is in no map.

    Args:
        baseline: What activations go to.
    """

    baseline: float = 0.0

    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The distances."""
        scorer, examples, found = Scorer(case.model, case.score), Examples.all(case.inputs), []
        for chunk in examples.chunks(case.batch_size):
            runner = Runner(scorer, chunk, case.site, batch_size=case.batch_size)
            found.append(runner.scores() - runner.scores(torch.full_like(runner.values, self.baseline)))
        return (case.maps.flatten(1).sum(dim=1) - torch.cat(found).to(case.maps)).abs()
