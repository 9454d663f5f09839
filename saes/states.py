"""What moves in training besides weights and optimizer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.types import Latents
from saes import controlling
from saes.base import SAE
from saes.engine.dense import DenseLatents, breaks_even

REVIEW = {"cpu": 1, "cuda": 16}
"""Steps between looks at which features are dead and how dense the codes are: on a GPU a look waits for the device."""


@dataclass
class TrainState:
    """What moves besides weights and optimizer, one a job; only the Trainer moves it.

    Args:
        silent: Tokens since each feature last fired.
        density: Running firing density of each feature.
        dead: Features that count as dead, as of the last review.
        kept: Codes a row in the last good step, those that are zero but have a gradient counted; NaN before the first.
        skipped: Steps skipped because loss or gradient was not finite.
        skipped_in_a_row: Those since the last good step.
        pressure: Logarithm of what sparsity penalties are multiplied by, where a job has a target L0.
        steps: Steps taken, skipped ones counted.
        dense: Whether steps are taken by the dense engine, as of the last review.
        failure: Why the job was dropped; empty while it is trained.
    """

    silent: Tensor
    density: Tensor
    dead: Tensor
    kept: Tensor
    skipped: Tensor
    skipped_in_a_row: Tensor
    pressure: Tensor
    steps: int = 0
    dense: bool = False
    failure: str = ""

    @classmethod
    def start(cls, sae: SAE) -> "TrainState":
        """The state of an SAE that has seen nothing."""
        device = sae.W_dec.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        density = torch.zeros(sae.d_sae, device=device)
        kept = torch.tensor(float("nan"), device=device)
        return cls(zeros(sae.d_sae), density, zeros(0), kept, zeros(), zeros(), torch.zeros((), device=device))

    def review(self, *, dead_after: int, path: str) -> None:
        """Look at the counters, if it is time to: which features are dead, and which engine takes the next steps.

        Args:
            dead_after: Tokens of silence after which a feature is dead.
            path: `sparse`, `dense`, or `auto` for the faster of the two.
        """
        if self.steps % REVIEW[self.silent.device.type]:
            return
        self.dead = (self.silent > dead_after).nonzero().squeeze(1)
        if path == "auto":
            self.dense = breaks_even(float(self.kept) / len(self.silent), self.silent.device)
        else:
            self.dense = path == "dense"

    @torch.no_grad()
    def move(
        self,
        sae: SAE,
        latents: Latents | DenseLatents,
        density_rate: float,
        good: Tensor | None = None,
        target_l0: float | None = None,
        rate: float = 0.0,
    ) -> None:
        """Count one step: silence, densities, and the SAE's thresholds; in place, since a graph may do it (`graphs`).

        Args:
            sae: Whose thresholds are moved.
            latents: The step's codes.
            density_rate: Weight of this step in the running density.
            good: Whether it had a finite loss; where it had none, only `steps` and what was skipped move.
            target_l0: What L0 is to become; None for what it may.
            rate: Part of its excess that is summed (`saes.controlling`).
        """
        good = torch.ones((), dtype=torch.bool, device=self.silent.device) if good is None else good
        fired = latents.fired().to(self.density.dtype)
        self.steps += 1
        self.skipped += ~good
        self.skipped_in_a_row.add_(1).masked_fill_(good, 0)
        silent = (self.silent + len(latents)).masked_fill_(fired > 0, 0)
        torch.where(good, silent, self.silent, out=self.silent)
        density = self.density.lerp(fired / max(len(latents), 1), density_rate)
        torch.where(good, density, self.density, out=self.density)
        counted = fired.sum() if isinstance(latents, DenseLatents) else fired.new_full((), latents.values.numel())
        torch.where(good, counted / max(len(latents), 1), self.kept, out=self.kept)
        for name, value in sae.moved_thresholds(latents).items():
            buffer = getattr(sae, name)
            buffer.copy_(torch.where(good, value, buffer))
        if target_l0 is not None:
            excess = controlling.excess(fired.sum() / max(len(latents), 1), target_l0) * good
            self.pressure += rate * excess
            sae.press(excess)

    def check(self, job: str, lr: float, most: int) -> None:
        """Refuse to go on where steps bring nothing; weights are as they were before them.

        Raises:
            FloatingPointError: If there were too many skipped steps in a row.
        """
        if int(self.skipped_in_a_row) >= most:
            raise FloatingPointError(
                f"job {job!r} had no finite loss in {int(self.skipped_in_a_row)} steps in a row (lr {lr}): "
                "lower lr, lower clip, or look for extreme rows in the store; the last checkpoint is untouched."
            )
