"""Feature Choice (Ayonrinde 2024, https://arxiv.org/abs/2411.02124)."""

import functools
from typing import Any, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import Latents
from saes.arguments import check_k, check_rate
from saes.axes import Axes
from saes.base import SAE
from saes.engine.choices import above, feature_budgets
from saes.engine.dense import DenseLatents
from saes.engine.selection import Candidates, Context


class FeatureChoice(SAE):
    """Let each feature keep its largest positive pre-activations in a batch, so that none dies.

    The budgets of a batch of `n` rows sum to `k * n`: the same for all features, or by Zipf's law, more for those that
    fire more often. At evaluation a row must not depend on its neighbours: a feature keeps what is above its own
    threshold, the running mean of the smallest value it kept in training batches.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input on average.
        zipf: The feature of rank r, in order of running density, may fire in proportion to `(r + shift) ** -zipf`, but
            at least once and at most in every row; 0 for all alike.
        shift: Flattens the law at its first ranks (Zipf-Mandelbrot), at least 0.
        threshold_rate: Weight of a new batch in the running thresholds and densities, in (0, 1].
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `k` is not in `1..d_sae`, `zipf` or `shift` is negative, `threshold_rate` is not in (0, 1], or if
            an SAE that has seen no training batch is evaluated.
    """

    latent_units = ("b_enc", "threshold")

    def __init__(
        self,
        *,
        d_in: int,
        d_sae: int,
        k: int = 32,
        zipf: float = 0.0,
        shift: float = 0.0,
        threshold_rate: float = 0.1,
        seed: int = 0,
        **axes: Unpack[Axes],
    ) -> None:
        check_k("k", k, d_sae)
        check_rate("threshold_rate", threshold_rate)
        for name, value in (("zipf", zipf), ("shift", shift)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}, but it is at least 0: 0 is the plain law of equal budgets.")
        self.k: int
        self.zipf: float
        self.shift: float
        self.threshold_rate: float
        self.threshold: Tensor
        self.density: Tensor
        own = {"k": k, "zipf": zipf, "shift": shift, "threshold_rate": threshold_rate}
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, **own, **axes)
        # Infinite where a feature has kept nothing yet: nothing is above.
        self.register_buffer("threshold", torch.full((d_sae,), torch.inf))
        self.register_buffer("density", torch.zeros(d_sae))

    def candidates(self, pre_acts: Float[Tensor, "features n"], context: Context) -> Candidates:
        """In training each feature's own choice; else the entries above its threshold."""
        if context.training:
            own = slice(context.start, context.start + len(pre_acts))
            return feature_budgets(pre_acts, self.budgets(context.n)[own], context)
        if bool(self.threshold.isinf().all()):
            raise ValueError(
                "threshold is not set, but evaluation needs it: train this FeatureChoice for at least one batch, "
                "load a trained one, or call .train() for the choice over the batch."
            )
        return above(pre_acts, self.threshold, context)

    def budgets(self, n: int) -> Int[Tensor, " d_sae"]:
        """Entries that each feature may keep of a batch of `n` rows."""
        ranked = self.density.argsort(descending=True, stable=True)
        shares = _shares(self.k * n, self.d_sae, n, self.zipf, self.shift).to(ranked.device)
        return torch.empty_like(ranked).scatter_(0, ranked, shares)

    def moved_thresholds(self, latents: Latents | DenseLatents) -> dict[str, Tensor]:
        """The running means of each feature's smallest kept value, and of its density."""
        values = latents.values.detach()
        values = torch.where(values > 0, values, torch.inf)
        if isinstance(latents, DenseLatents):
            smallest = values.amin(dim=0) if len(latents) else self.threshold
        else:
            smallest = torch.full_like(self.threshold, torch.inf).scatter_reduce_(0, latents.indices, values, "amin")
        running = self.threshold.lerp(smallest, self.threshold_rate)
        running = torch.where(self.threshold.isinf(), smallest, running)
        fired = latents.fired().to(self.density.dtype) / max(len(latents), 1)
        return {
            "threshold": torch.where(smallest.isinf(), self.threshold, running),
            "density": self.density.lerp(fired, self.threshold_rate),
        }

    def default_penalties(self) -> tuple[Any, ...]:
        """None: every feature fires in every batch that has a positive entry for it."""
        return ()


@functools.lru_cache(maxsize=8)
def _shares(total: int, d_sae: int, n: int, zipf: float, shift: float) -> Int[Tensor, " d_sae"]:
    """Whole numbers in `0..n` by rank that sum to `total`; none is 0 where there is enough for all."""
    law = (torch.arange(1, d_sae + 1, dtype=torch.float64) + shift) ** -zipf
    least = 1.0 if total >= d_sae else 0.0
    low, high = 0.0, float(total / law[-1])  # The last rank alone would have it all.
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (law * middle).clamp(least, n).sum() < total else (low, middle)
    ideal = (law * high).clamp(least, n)
    whole = ideal.floor()
    # What rounding down has left goes to the ranks at which the running sum of the fractions passes a half.
    passed = (ideal - whole).cumsum(0).add_(0.5).floor()
    shares = (whole + passed.diff(prepend=passed.new_zeros(1))).long()
    return shares.sort(descending=True).values
