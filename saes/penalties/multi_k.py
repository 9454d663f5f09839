"""Multi-TopK's second reconstruction (Gao et al. 2024, appendix A.3, https://arxiv.org/abs/2406.04093)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saes.engine import passes
from saes.penalties.base import Step, needed, squared_error


@dataclass(frozen=True)
class MultiK:
    """Squared error of a second reconstruction, from more latents than the codes have.

    Summed over the width, averaged over rows, in the units of the reconstruction loss.

    Args:
        coefficient: Weight of the term; 1/8 as in the paper.

    Raises:
        ValueError: If the coefficient is negative; at a step, if the method keeps no further latents.
    """

    coefficient: float = 0.125
    needs: ClassVar[str] = "further"

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"MultiK has coefficient {self.coefficient}, but it is at least 0: choose such a value.")

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        further = step.latents.with_values(needed(step, self, of="MultiTopK"))
        added, _ = passes.decode(further, step.sae.W_dec, torch.zeros_like(step.sae.b_dec))
        return self.coefficient * squared_error(added, step.residual)
