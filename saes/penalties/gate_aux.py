"""Gated's second reconstruction (Rajamanoharan et al. 2024, https://arxiv.org/abs/2404.16014)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saes.engine import passes
from saes.penalties.base import Step, needed, squared_error


@dataclass(frozen=True)
class GateAux:
    """Squared error of a reconstruction from the positive part of the gate, the decoder and its bias held fixed.

    It tells the gate, whose step has no gradient, what to fire for. Summed over the width, averaged over rows, in the
    units of the reconstruction loss.

    Args:
        coefficient: Weight of the term; 1 as in the paper.

    Raises:
        ValueError: If the coefficient is negative; at a step, if the method has no gate.
    """

    coefficient: float = 1.0
    needs: ClassVar[str] = "gate"

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"GateAux has coefficient {self.coefficient}, but it is at least 0: choose such a value.")

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        gate, sae = needed(step, self, of="Gated"), step.sae
        # As a correction of the codes' output, so that whatever else is in it stays there.
        latents = step.latents.with_values(gate - step.latents.values.detach())
        added, _ = passes.decode(latents, sae.W_dec.detach(), torch.zeros_like(sae.b_dec))
        return self.coefficient * squared_error(added, step.residual.detach())
