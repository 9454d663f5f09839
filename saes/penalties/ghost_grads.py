"""Ghost grads (Anthropic, January 2024, https://transformer-circuits.pub/2024/jan-update#dict-learning-resampling)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saes.penalties.base import Step, squared_error


@dataclass(frozen=True)
class GhostGrads:
    """Squared error of predicting the residual (held fixed) from all dead latents, with an exponential for a ReLU.

    Each row's prediction is scaled to half the norm of its residual, and the term to the size of the squared error of
    the reconstruction, both held fixed: its value says nothing, its gradient is what counts. It grows with the number
    of dead latents. The authors later found it to be of no use beside other improvements (March 2024); AuxK is what
    came of it. Zero while nothing is dead.

    Args:
        coefficient: Weight of the term.

    Raises:
        ValueError: If the coefficient is negative.
    """

    coefficient: float = 1.0
    reads_dead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(
                f"GhostGrads has coefficient {self.coefficient}, but it is at least 0: choose such a value, or "
                "penalties=() for none."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        if self.coefficient == 0:
            return step.recon.new_zeros(())
        dead = step.dead_features()
        if len(dead.features) == 0:
            return step.recon.new_zeros(())
        residual = step.residual.detach()
        # The scale undoes any factor a row: this one keeps exponentials from overflowing.
        largest = dead.pre_acts.detach().amax(dim=1, keepdim=True).clamp_(min=0)
        ghosts = torch.exp(dead.pre_acts - largest) @ dead.W_dec
        sizes = ghosts.detach().norm(dim=1, keepdim=True)
        scales = residual.norm(dim=1, keepdim=True) / (2 * sizes)
        error = squared_error(ghosts * torch.where(sizes > 0, scales, 0), residual)
        loss, size = squared_error(residual, torch.zeros_like(residual)), error.detach()
        return self.coefficient * error * torch.where(size > 0, loss / size, 0)
