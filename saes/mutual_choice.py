"""Mutual Choice (Ayonrinde 2024, https://arxiv.org/abs/2411.02124)."""

from typing import Any, Unpack

from saes.axes import Axes
from saes.engine.batch_choice import BatchChoice
from saes.penalties.aux_zipf import AuxZipf


class MutualChoice(BatchChoice):
    """Keep the `k * n` best pairs of row and feature of a batch of `n`, with a loss that keeps features in use.

    Rows and features choose each other freely under one budget. It is the choice of BatchTopK, with AuxZipf where that
    has AuxK; evaluation keeps what is above a threshold, the running mean of the smallest value kept in training.

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

    def __init__(
        self,
        *,
        d_in: int,
        d_sae: int,
        k: int = 32,
        threshold_rate: float = 0.1,
        seed: int = 0,
        **axes: Unpack[Axes],
    ) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, k=k, threshold_rate=threshold_rate, seed=seed, **axes)

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxZipf revives dead latents and those about to die."""
        return (AuxZipf(),)
