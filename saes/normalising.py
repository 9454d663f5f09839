"""The normaliser of a training run: `x -> x * scale`, estimated once, folded into what is saved."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import Activations, ActivationStore
from saes.base import SAE

Normalise = Literal["scale", "none"]


@dataclass(frozen=True)
class Normaliser:
    """A change of units. The mean is not taken off: it is where `b_dec` starts, and learned from there.

    Args:
        mean: Mean of the activations in the model's units.
        scale: Factor that gives the activations unit variance, averaged over dimensions; 1 for none.
        sample: The first rows it was estimated from, in the model's units; None where it was read from a checkpoint.
    """

    mean: Float[Tensor, " d_in"]
    scale: float
    sample: Float[Tensor, "n d_in"] | None = None

    def __call__(self, activations: Activations) -> Activations:
        """Change the units of values and, by the inverse, of gradients. Targets keep theirs."""
        if self.scale == 1.0:
            return activations
        grads = None if activations.grads is None else activations.grads / self.scale
        return Activations(
            activations.values * self.scale, activations.example, activations.position, grads, activations.target
        )

    @torch.no_grad()
    def enter(self, sae: SAE) -> None:
        """Bring an SAE from the model's units into those of training; one whose `b_dec` is 0 starts at the mean."""
        sae.rescale_inputs(1 / self.scale)
        if sae.b_dec.count_nonzero() == 0:
            sae.b_dec.copy_(self.mean * self.scale)


def estimate(store: ActivationStore, how: Normalise, *, seed: int, rows: int = 65536, size: int = 4096) -> Normaliser:
    """Estimate from the first shuffled rows of a store; sums in float64.

    Args:
        store: Activations.
        how: `scale` for unit variance, `none` to leave the units alone.
        seed: Names the shuffle.
        rows: How many rows to look at.
        size: Rows a batch.

    Raises:
        ValueError: If `how` is neither, or the rows are not finite, or all are equal.
    """
    if how not in ("scale", "none"):
        raise ValueError(f"normalise is {how!r}, but it is 'scale' or 'none': choose one.")
    total = torch.zeros(store.d_in, dtype=torch.float64)
    squares, n, sample = 0.0, 0, None
    for batch in store.batches(size, seed=seed, epochs=1):
        sample = batch.values if n == 0 else sample
        values = batch.values.double()
        total += values.sum(0)
        squares += float(values.square().sum())
        n += len(values)
        if n >= rows:
            break
    mean = total / n
    variance = squares / n - float(mean.square().sum())
    if not math.isfinite(variance):
        raise ValueError(
            f"the store has NaN, infinite or overflowing values in its first {n} shuffled rows: "
            "look for the examples that made them and harvest again."
        )
    if how == "scale" and variance <= 1e-12 * squares / n:
        raise ValueError(
            "the store's rows do not vary, so nothing can be learned from them: look at the site and the data."
        )
    return Normaliser(mean.float(), (store.d_in / variance) ** 0.5 if how == "scale" else 1.0, sample)
