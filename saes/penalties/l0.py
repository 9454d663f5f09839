"""L0 through straight-through thresholds (Rajamanoharan et al. 2024, https://arxiv.org/abs/2407.14435)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from saes.penalties.base import Step, needed


@dataclass(frozen=True)
class L0:
    """Number of latents that fire, averaged over rows; its gradient raises the thresholds of latents near them.

    Args:
        coefficient: Weight of the term; inputs have unit variance a dimension and the error is summed over them.
        warmup: Part of the run over which the coefficient rises linearly from 0, so that features form first.

    Raises:
        ValueError: If the coefficient is negative or `warmup` not in [0, 1]; at a step, if the method has no
            thresholds to move.
    """

    coefficient: float = 1.0
    warmup: float = 0.05
    needs: ClassVar[str] = "firing"
    sparsity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"L0 has coefficient {self.coefficient} and warmup {self.warmup}, but the coefficient is at least 0 "
                "and warmup a part of the run in [0, 1]: choose such values."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        firing = needed(step, self, of="JumpReLU")
        rise = min(1.0, step.progress / self.warmup) if self.warmup else 1.0
        return self.coefficient * rise * firing / len(step.latents)
