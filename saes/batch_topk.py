"""BatchTopK (Bussmann et al. 2024, https://arxiv.org/abs/2412.06410)."""

from typing import Any, Unpack

from saes.axes import Axes
from saes.engine.batch_choice import BatchChoice
from saes.penalties.aux_k import AuxK


class BatchTopK(BatchChoice):
    """Keep the `k * n` largest positive pre-activations of a batch of `n`, so that rows share a budget.

    At evaluation a row must not depend on its neighbours: entries above a threshold are kept, the running mean of
    the smallest value kept in training batches.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input on average.
        threshold_rate: Weight of a new batch in the running threshold, in (0, 1].
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`: prefixes make it Matryoshka.

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
        """AuxK revives dead latents."""
        return (AuxK(),)
