"""Tanh (Anthropic, January 2025, https://transformer-circuits.pub/2025/january-update)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saes.penalties.base import Step, rise, weighted


@dataclass(frozen=True)
class Tanh:
    """Sum of the hyperbolic tangents of the latents, averaged over rows: L1 of small latents, L0 of large ones.

    A latent counts by its size times the norm of its decoder row. On a JumpReLU the gradient reaches all that makes a
    code: encoder, bias and, through the jump, the threshold, where L0 moves thresholds alone.

    Args:
        coefficient: Weight of the term; inputs have unit variance a dimension and the error is summed over them.
        steepness: What a latent is multiplied by; above a few times its inverse a latent counts as 1.
        warmup: Part of the run over which the coefficient rises linearly from 0; all of it, as in the update.

    Raises:
        ValueError: If the coefficient is negative, `steepness` not positive, or `warmup` not in [0, 1].
    """

    coefficient: float = 1.0
    steepness: float = 4.0
    warmup: float = 1.0
    sparsity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0 or not self.steepness > 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"Tanh has coefficient {self.coefficient}, steepness {self.steepness} and warmup {self.warmup}, but "
                "the coefficient is at least 0, steepness positive, and warmup a part of the run in [0, 1]: choose "
                "such values."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        sizes = weighted(step, step.latents.values)
        return self.coefficient * rise(step, self.warmup) * torch.tanh(self.steepness * sizes).sum() / len(step.latents)
