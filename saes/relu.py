"""ReLU with an L1 penalty (Cunningham et al. 2023, https://arxiv.org/abs/2309.08600)."""

from typing import Any, Unpack

from saes.axes import Axes
from saes.base import SAE
from saes.penalties.l1 import L1


class ReLU(SAE):
    """Keep every positive pre-activation; the L1 penalty of the training makes them few.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.
    """

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0, **axes: Unpack[Axes]) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, **axes)

    def bound(self) -> float:
        """Every positive entry is kept."""
        return 0.0

    def default_penalties(self) -> tuple[Any, ...]:
        """L1 on the latents."""
        return (L1(),)
