"""AuxZipf: AuxK for all that fires too rarely (Ayonrinde 2024, https://arxiv.org/abs/2411.02124)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saes.engine.choices import row_borders
from saes.penalties.base import Step, squared_error

_LOOKED_AT = 4  # Times k_aux: so many features make a row's choice among them a choice, and stay few beside d_sae.
_DYING = 0.5  # Of what the law expects; those a little below it, as chance puts many, crowd out the dead.


@dataclass(frozen=True)
class AuxZipf:
    """Squared error of predicting the residual (held fixed) from the largest latents among those used too little.

    These are the dead ones, and the dying: those whose running density is below half of what a Zipf-Mandelbrot law of
    the same mean L0 has at their rank, in rows in which they do not fire. No more than four times `k_aux` are looked
    at, those with the least part of what the law expects. Summed over the width, averaged over rows, in the units of
    the reconstruction loss, as AuxK is: relative to the residual, its weight would grow as the reconstruction gets
    better.

    No code was released: what is not in the abstract and the reviews is our reconstruction.

    Args:
        coefficient: Weight of the term.
        k_aux: Latents a row; None is half the width.
        zipf: Exponent of the law: rank r is expected to fire in proportion to `(r + shift) ** -zipf`.
        shift: Flattens the law at its first ranks, at least 0.

    Raises:
        ValueError: If a number is negative, or `k_aux` not positive.
    """

    coefficient: float = 0.25
    k_aux: int | None = None
    zipf: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if min(self.coefficient, self.zipf, self.shift) < 0 or (self.k_aux is not None and self.k_aux < 1):
            raise ValueError(
                f"AuxZipf has coefficient {self.coefficient}, k_aux {self.k_aux}, zipf {self.zipf} and shift "
                f"{self.shift}, but k_aux is at least 1 and the others at least 0: choose such values, or penalties=() "
                "for none."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        if self.coefficient == 0:
            return step.recon.new_zeros(())
        k = self.k_aux or max(step.x.shape[1] // 2, 1)
        features = self._needy(step)[: _LOOKED_AT * k]
        if len(features) == 0:
            return step.recon.new_zeros(())
        residual, pre_acts = step.residual.detach(), step.sae.pre_acts(step.x, features)
        # What fires is in the reconstruction already; to predict what that misses would pull it off its own feature.
        fires = (step.latents.detach().columns(features) != 0) & ~step.dead[features]
        pre_acts = pre_acts.masked_fill(fires, 0)
        if k < len(features):
            values = pre_acts.detach()
            pre_acts = pre_acts * (values >= row_borders(values, k))
        return self.coefficient * squared_error(torch.relu(pre_acts) @ step.sae.W_dec[features], residual)

    def _needy(self, step: Step) -> Int[Tensor, " f"]:
        """The dead, then the dying, the neediest first."""
        densities, ranked = step.density.sort(descending=True, stable=True)
        ranks = torch.arange(1, len(ranked) + 1, dtype=densities.dtype, device=densities.device)
        law = (ranks + self.shift) ** -self.zipf
        used = densities / (law * (densities.sum() / law.sum()))
        used = torch.where(step.dead[ranked], 0, torch.where(densities.sum() > 0, used, 1))
        return ranked[used.argsort(stable=True)][: int((used < _DYING).count_nonzero())]
