"""What moves in training besides weights and optimizer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.types import Latents
from saes.base import SAE


@dataclass
class TrainState:
    """What moves besides weights and optimizer, one a job; only the Trainer moves it.

    Args:
        silent: Tokens since each feature last fired.
        density: Running firing density of each feature.
        steps: Steps taken, skipped ones counted.
        skipped: Steps skipped because loss or gradient was not finite.
        skipped_in_a_row: Those since the last good step.
    """

    silent: Tensor
    density: Tensor
    steps: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    @classmethod
    def start(cls, sae: SAE) -> "TrainState":
        """The state of an SAE that has seen nothing."""
        device = sae.W_dec.device
        return cls(torch.zeros(sae.d_sae, dtype=torch.long, device=device), torch.zeros(sae.d_sae, device=device))

    @torch.no_grad()
    def move(self, sae: SAE, latents: Latents, density_rate: float) -> None:
        """Count one good step: silence, densities, and the SAE's thresholds."""
        fired = torch.bincount(latents.indices[latents.values != 0], minlength=sae.d_sae)
        self.silent.add_(len(latents)).masked_fill_(fired > 0, 0)
        self.density.lerp_(fired / len(latents), density_rate)
        self.steps += 1
        self.skipped_in_a_row = 0
        for name, value in sae.moved_thresholds(latents).items():
            getattr(sae, name).copy_(value)

    def skip(self, job: str, lr: float, most: int) -> None:
        """Count one step whose loss or gradient was not finite.

        Raises:
            FloatingPointError: If there were too many in a row.
        """
        self.steps += 1
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= most:
            raise FloatingPointError(
                f"job {job!r} had no finite loss in {self.skipped_in_a_row} steps in a row (lr {lr}): "
                "lower lr, lower clip, or look for extreme rows in the store; the last checkpoint is untouched."
            )
