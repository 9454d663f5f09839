"""p-annealing (Karvonen et al. 2024, https://arxiv.org/abs/2408.00113)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from saes.penalties.base import Step, rise, weighted


@dataclass(frozen=True)
class PAnnealing:
    """Sum of the latents to the power `p`, averaged over rows; `p` falls from 1, which is L1, towards L0.

    A latent counts by its size times the norm of its decoder row, as in L1. The coefficient is rescaled so that the
    penalty keeps the size of L1: by the batch's L1 sum over its sum of powers, both held fixed. The paper multiplies
    the coefficient at each change of `p` by the ratio of the sums under the old and the new `p` over recent batches;
    for one and the same batch the product of these ratios is ours.

    Args:
        coefficient: Weight of the term; inputs have unit variance a dimension and the error is summed over them.
        p_end: The last power, in (0, 1].
        start: Part of the run after which `p` begins to fall, linearly.
        end: Part of the run after which `p` stays at `p_end`.
        floor: Size below which a latent's slope no longer grows, since that of a power is infinite at 0: the power
            goes on to 0 as a straight line.
        warmup: Part of the run over which the coefficient rises linearly from 0, so that features form first.

    Raises:
        ValueError: If the coefficient is negative, `p_end` not in (0, 1], `start` and `end` do not ascend within
            [0, 1], `floor` is not positive, or `warmup` not in [0, 1].
    """

    coefficient: float = 1.0
    p_end: float = 0.2
    start: float = 0.2
    end: float = 1.0
    floor: float = 0.01
    warmup: float = 0.05
    sparsity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.coefficient < 0 or not 0 <= self.warmup <= 1:
            raise ValueError(
                f"PAnnealing has coefficient {self.coefficient} and warmup {self.warmup}, but the coefficient is at "
                "least 0 and warmup a part of the run in [0, 1]: choose such values."
            )
        if not 0 < self.p_end <= 1 or not 0 <= self.start < self.end <= 1 or not self.floor > 0:
            raise ValueError(
                f"PAnnealing has p_end {self.p_end}, start {self.start}, end {self.end} and floor {self.floor}, but "
                "p_end is in (0, 1], start and end are ascending parts of the run, and floor is positive: choose such "
                "values."
            )

    def p(self, progress: float) -> float:
        """The power at a part of the run."""
        done = (progress - self.start) / (self.end - self.start)
        return 1 - (1 - self.p_end) * min(max(done, 0.0), 1.0)

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The penalty of one batch."""
        sizes = weighted(step, step.latents.values)
        powers = (sizes * sizes.clamp(min=self.floor).pow(self.p(step.progress) - 1)).sum()
        scale = (sizes.sum() / powers).detach().nan_to_num()  # 0 / 0 where nothing fires.
        return self.coefficient * rise(step, self.warmup) * scale * powers / len(step.latents)
