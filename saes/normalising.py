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
        target_mean: Mean of the targets, where the store has them.
        target_scale: The same factor for targets, which have units of their own.
    """

    mean: Float[Tensor, " d_in"]
    scale: float
    sample: Float[Tensor, "n d_in"] | None = None
    target_mean: Float[Tensor, " d_out"] | None = None
    target_scale: float = 1.0

    @property
    def out(self) -> float:
        """The factor of what an SAE gives back: targets', or rows' where they are their own."""
        return self.scale if self.target_mean is None else self.target_scale

    def __call__(self, activations: Activations) -> Activations:
        """Change the units of values and targets, and by the inverse those of gradients."""
        grads, target = activations.grads, activations.target
        if self.scale == 1.0 and (target is None or self.target_scale == 1.0):
            return activations
        return Activations(
            activations.values * self.scale,
            activations.example,
            activations.position,
            None if grads is None else grads / self.scale,
            None if target is None else target * self.target_scale,
        )

    @torch.no_grad()
    def enter(self, sae: SAE) -> None:
        """Bring an SAE from the model's units into those of training.

        One whose biases are 0 has seen no data and has no units yet: its other numbers are meant for training, and its
        biases start at the means.
        """
        starts = [(sae.b_in, self.mean * self.scale)]
        if self.target_mean is not None:
            starts.append((sae.b_dec, self.target_mean * self.target_scale))
        if any(bias.count_nonzero() for bias, _ in starts):
            sae.rescale(1 / self.scale, 1 / self.out)
            return
        for bias, start in starts:
            bias.copy_(start)

    def leave(self, sae: SAE) -> None:
        """Bring an SAE from the units of training back into the model's."""
        sae.rescale(self.scale, self.out)


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
    sums = [_Sums(store.d_in)]
    sample = None
    for batch in store.batches(size, seed=seed, epochs=1):
        sample = batch.values if sample is None else sample
        sums[0].add(batch.values)
        if batch.target is not None:
            sums += [_Sums(batch.target.shape[1])] if len(sums) == 1 else []
            sums[1].add(batch.target)
        if sums[0].n >= rows:
            break
    means = [one.mean.float() for one in sums]
    factors = [one.factor() if how == "scale" else one.check() for one in sums]
    if len(sums) == 1:
        return Normaliser(means[0], factors[0], sample)
    return Normaliser(means[0], factors[0], sample, means[1], factors[1])


class _Sums:
    """Sums over rows, in float64."""

    def __init__(self, width: int) -> None:
        self.total, self.squares, self.n = torch.zeros(width, dtype=torch.float64), 0.0, 0

    def add(self, rows: Tensor) -> None:
        values = rows.double()
        self.total += values.sum(0)
        self.squares += float(values.square().sum())
        self.n += len(values)

    @property
    def mean(self) -> Tensor:
        return self.total / self.n

    def check(self) -> float:
        """1, the factor of rows whose units stay."""
        if not math.isfinite(self.squares):
            raise ValueError(
                f"the store has NaN, infinite or overflowing values in its first {self.n} shuffled rows: "
                "look for the examples that made them and harvest again."
            )
        return 1.0

    def factor(self) -> float:
        """What gives the rows unit variance, averaged over dimensions."""
        self.check()
        variance = self.squares / self.n - float(self.mean.square().sum())
        if variance <= 1e-12 * self.squares / self.n:
            raise ValueError(
                "the store's rows do not vary, so nothing can be learned from them: look at the site and the data."
            )
        return float((len(self.total) / variance) ** 0.5)
