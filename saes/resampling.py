"""Resampling of dead latents (Bricken et al. 2023, https://transformer-circuits.pub/2023/monosemantic-features)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from saes.base import SAE
from saes.engine.optimizing import Adam


@dataclass(frozen=True)
class Resampling:
    """Dead latents start again at inputs that are badly reconstructed, every so many steps.

    An input is drawn with a probability in proportion to the square of its loss. It becomes the latent's decoder row at
    norm 1 and, at a part of the living latents' mean norm, its encoder's; its bias becomes 0, and Adam forgets the
    latent. The paper draws from 819,200 inputs of their own; here they are those of the step at hand.

    Args:
        every: Steps between two times.
        until: Part of the run after which nothing is resampled.
        scale: Norm of a new encoder row, as a part of the living ones' mean.

    Raises:
        ValueError: If `every` or `scale` is not positive, or `until` is not in [0, 1].
    """

    every: int = 250
    until: float = 0.5
    scale: float = 0.2

    def __post_init__(self) -> None:
        if self.every < 1 or self.scale <= 0 or not 0 <= self.until <= 1:
            raise ValueError(
                f"Resampling has every {self.every}, until {self.until} and scale {self.scale}, but every and scale "
                "are positive and until is a part of the run in [0, 1]: choose such values."
            )

    def due(self, step: int, steps: int) -> bool:
        """Whether the step with this number, of so many, is followed by it."""
        return step % self.every == 0 and step <= self.until * steps

    def suits(self, sae: SAE) -> bool:
        """Whether the SAE has rows that can start again."""
        return sae.W_enc is not None and sae.unit_rows is not None

    @torch.no_grad()
    def apply(self, sae: SAE, adam: Adam, silent: Tensor, dead: Tensor, x: Tensor, residual: Tensor, key: int) -> None:
        """Restart the dead latents.

        Args:
            sae: What is trained, in units of training.
            adam: Its optimizer.
            silent: Tokens since each feature fired; those that restart count as alive again.
            dead: Numbers of the dead ones.
            x: The step's inputs, `[n, d_in]`.
            residual: What their reconstructions miss, `[n, d_out]`.
            key: Names the draw.
        """
        if len(dead) == 0:
            return
        loss = residual.detach().square().sum(dim=1).double()
        weights = (loss / loss.max()).square().cpu()
        draw = torch.Generator().manual_seed(key)
        fewer = int((weights > 0).sum()) < len(dead)
        rows = torch.multinomial(weights, len(dead), replacement=fewer, generator=draw).to(x.device)
        start = torch.nn.functional.normalize(x[rows] - sae.b_in, dim=1)
        alive = torch.ones(sae.d_sae, dtype=torch.bool, device=x.device).index_fill_(0, dead, False)
        norms = sae.W_enc.norm(dim=0)
        size = self.scale * (norms[alive].mean() if bool(alive.any()) else norms.new_ones(()))
        decoder = sae.unit_rows
        assert decoder is not None
        decoder[dead] = start if sae.axes["d_out"] is None else torch.nn.functional.normalize(residual[rows], dim=1)
        sae.W_enc[:, dead] = (start * size).T
        sae.b_enc[dead] = 0.0
        for parameter, at in ((decoder, (dead,)), (sae.W_enc, (slice(None), dead)), (sae.b_enc, (dead,))):
            for name in ("exp_avg", "exp_avg_sq"):
                adam.state[parameter][name][at] = 0.0
        silent[dead] = 0
