"""L1 of a gate (Rajamanoharan et al. 2024, https://arxiv.org/abs/2404.16014)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from saes.penalties.base import Step, needed, rise, weighted


@dataclass(frozen=True)
class GateL1:
    """Sum of the positive part of the gate times the norms of the decoder rows, averaged over rows.

    Args:
        coefficient: Weight of the term; inputs have unit variance a dimension and the error is summed over them.
        warmup: Part of the run over which the coefficient rises linearly from 0, so that features form first.

    Raises:
        ValueError: If the coefficient is negative or `warmup` not in [0, 1]; at a step, if the method has no gate.
    """

    coefficient: float = 1.0
    warmup: float = 0.05
    needs: ClassVar[str] = "gate"
    sparsity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"GateL1 has coefficient {self.coefficient} and warmup {self.warmup}, but the coefficient is at least "
                "0 and warmup a part of the run in [0, 1]: choose such values."
            )

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        gate = weighted(step, needed(step, self, of="Gated"))
        return self.coefficient * rise(step, self.warmup) * gate.sum() / len(step.latents)
