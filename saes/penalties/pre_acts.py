"""Pre-activations (Anthropic, January 2025, https://transformer-circuits.pub/2025/january-update)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saes.penalties.base import Step, needed


@dataclass(frozen=True)
class PreActs:
    """How far pre-activations are below their thresholds, times the norms of decoder rows: it keeps latents alive.

    Summed over all latents, those that never fire too, and averaged over rows.

    Args:
        coefficient: Weight of the term; 3e-6 as in the update.

    Raises:
        ValueError: If the coefficient is negative; at a step, if the method has no thresholds.
    """

    coefficient: float = 3e-6
    needs: ClassVar[str] = "thresholds"

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"PreActs has coefficient {self.coefficient}, but it is at least 0: choose such a value.")

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        sae, thresholds = step.sae, needed(step, self, of="JumpReLU")
        # relu(t - z) = t - z + relu(z - t): linear in the mean row, but for what fires, and that is at hand.
        below = thresholds - torch.addmv(sae.b_enc, sae.W_enc.T, step.x.mean(0) - sae.b_in)
        above = torch.relu(step.extras["pre_acts"] - step.latents.spread(thresholds))
        if not step.on_sphere:
            norms = sae.W_dec.norm(dim=1)
            below, above = below * norms, above * step.latents.spread(norms)
        return self.coefficient * (below.sum() + above.sum() / len(step.latents))
