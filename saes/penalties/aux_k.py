"""AuxK: dead latents learn what the living ones miss (Gao et al. 2024, https://arxiv.org/abs/2406.04093)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saes.engine.choices import row_borders
from saes.penalties.base import Step, squared_error


@dataclass(frozen=True)
class AuxK:
    """Squared error of predicting the residual (held fixed) from the `k_aux` largest dead latents of each row.

    Summed over the width, averaged over rows, in the units of the reconstruction loss. Zero while nothing is dead.

    Args:
        coefficient: Weight of the term. The paper has 1/32; 1/4 revived more and cost nothing in our worlds.
        k_aux: Dead latents a row; None is half the width, as in the paper.

    Raises:
        ValueError: If the coefficient is negative or `k_aux` not positive.
    """

    coefficient: float = 0.25
    k_aux: int | None = None
    reads_dead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0 or (self.k_aux is not None and self.k_aux < 1):
            raise ValueError(
                f"AuxK has coefficient {self.coefficient} and k_aux {self.k_aux}, but the coefficient is at least 0 "
                "and k_aux at least 1: choose such values, or penalties=() for none."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        if self.coefficient == 0:
            return step.recon.new_zeros(())
        dead = step.dead_features()
        n_dead = len(dead.features)
        if n_dead == 0:
            return step.recon.new_zeros(())
        residual, pre_acts = step.residual.detach(), dead.pre_acts
        k = min(self.k_aux or max(step.x.shape[1] // 2, 1), n_dead)
        if k < n_dead:
            # A border a row, not a scatter: what is below the k-th largest goes to zero.
            values = pre_acts.detach()
            values = values.abs() if step.sae.signed else values
            pre_acts = pre_acts * (values >= row_borders(values, k))
        codes = pre_acts if step.sae.signed else torch.relu(pre_acts)
        return self.coefficient * squared_error(codes @ dead.W_dec, residual)
