"""The rule of SAEs whose rows share one budget: the largest of a whole batch in training, a threshold at evaluation."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import Latents
from saes.arguments import check_k, check_rate
from saes.base import SAE
from saes.engine.choices import above, below_largest, largest
from saes.engine.dense import DenseLatents
from saes.engine.selection import Candidates, Context

BOUNDS = (0.95, 0.8)
"""Fractions of the last batch's smallest kept value tried as a bound, before all positive."""


class BatchChoice(SAE):
    """What keeps the `k * n` largest positive pre-activations of a batch of `n`, and remembers where they end.

    No method itself: methods name it, with a paper and a preset of penalties.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input on average.
        threshold_rate: Weight of a new batch in the running threshold, in (0, 1].
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `k` is not in `1..d_sae`, `threshold_rate` is not in (0, 1], or if an SAE that has seen no
            training batch is evaluated.
    """

    latent_units: ClassVar[tuple[str, ...]] = ("b_enc", "threshold")

    def __init__(self, *, d_in: int, d_sae: int, k: int, threshold_rate: float, seed: int, **axes: Any) -> None:
        check_k("k", k, d_sae)
        check_rate("threshold_rate", threshold_rate)
        self.k: int
        self.threshold_rate: float
        self.threshold: Tensor
        self.last: Tensor
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, threshold_rate=threshold_rate, **axes)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        # Where the last batch's choice ended. It makes the next choice cheap and never changes it: it is not saved.
        self.register_buffer("last", torch.tensor(float("nan")), persistent=False)

    def candidates(self, pre_acts: Float[Tensor, "features n"], context: Context) -> Candidates:
        """In training a superset of the batch's choice; else the entries above the threshold."""
        if not context.training:
            threshold = float(self.threshold)
            if threshold != threshold:
                raise ValueError(
                    f"threshold is not set, but evaluation needs it: train this {type(self).__name__} for at least "
                    "one batch, load a trained one, or call .train() for the choice over the batch."
                )
            return above(pre_acts, threshold, context)
        last, budget = float(self.last), self.k * context.n
        if last == last and context.attempt < len(BOUNDS):
            bound = last * BOUNDS[context.attempt]
        else:
            bound = max(below_largest(pre_acts, budget), 0.0)
        # What is not among the budget's worth of one chunk is not in the batch's choice either.
        return largest(above(pre_acts, bound, context), budget)

    def choose(self, candidates: Candidates, context: Context) -> Candidates | None:
        """The largest of the whole batch; exact, because too few candidates are asked for again."""
        if not context.training:
            return candidates
        budget = self.k * context.n
        complete = bool(self.last.isnan()) or context.attempt >= len(BOUNDS)
        if candidates.values.numel() < budget and not complete:
            return None
        return largest(candidates, budget)

    def moved_thresholds(self, latents: Latents | DenseLatents) -> dict[str, Tensor]:
        """The running mean of the smallest kept value."""
        values = latents.values.detach()
        if values.numel() == 0:
            return {}
        smallest = torch.where(values > 0, values, torch.inf).amin()
        smallest = torch.where(smallest.isinf(), self.last, smallest)  # Nothing was kept.
        running = self.threshold.lerp(smallest, self.threshold_rate)
        return {"threshold": torch.where(self.threshold.isnan(), smallest, running), "last": smallest}
