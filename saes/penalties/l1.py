"""L1 weighted by decoder norms (Anthropic, April 2024, https://transformer-circuits.pub/2024/april-update)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from saes.crosscoders import site_norms
from saes.penalties.base import Step


@dataclass(frozen=True)
class L1:
    """Sum of the latents times the norms of their decoder rows, averaged over rows.

    Args:
        coefficient: Weight of the term; inputs have unit variance a dimension and the error is summed over them.
        warmup: Part of the run over which the coefficient rises linearly from 0, so that features form first.
        widths: Widths of the sites of a crosscoder, whose decoder rows are weighted by the sum of their norms at each
            site (Lindsey et al. 2024, https://transformer-circuits.pub/2024/crosscoders); None for one site.

    Raises:
        ValueError: If the coefficient is negative or `warmup` not in [0, 1]; at a step, if `widths` are not those of
            the decoder.
    """

    coefficient: float = 1.0
    warmup: float = 0.05
    widths: tuple[int, ...] | None = None
    sparsity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"L1 has coefficient {self.coefficient} and warmup {self.warmup}, but the coefficient is at least 0 "
                "and warmup a part of the run in [0, 1]: choose such values."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        rise = min(1.0, step.progress / self.warmup) if self.warmup else 1.0
        latents, sizes = step.latents, step.latents.values
        if step.sae.signed:
            sizes = sizes.abs()
        if self.widths is not None:
            sizes = sizes * latents.spread(site_norms(step.sae.W_dec, self.widths).sum(dim=0))
        elif not step.on_sphere:
            sizes = sizes * latents.spread(step.sae.W_dec.norm(dim=1))
        return self.coefficient * rise * sizes.sum() / len(latents)
