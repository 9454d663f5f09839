"""TopK (Gao et al. 2024, https://arxiv.org/abs/2406.04093)."""

from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor

from saes.arguments import check_k
from saes.axes import Axes
from saes.base import SAE
from saes.engine.choices import row_top_k
from saes.engine.selection import Candidates, Context
from saes.penalties.aux_k import AuxK


class TopK(SAE):
    """Keep the `k` largest positive pre-activations of each input and zero the rest.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input; the L0 of every row is at most `k`.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`: prefixes make it Matryoshka.

    Raises:
        ValueError: If `k` is not in `1..d_sae`.
    """

    by_feature = False

    def __init__(self, *, d_in: int, d_sae: int, k: int = 32, seed: int = 0, **axes: Unpack[Axes]) -> None:
        check_k("k", k, d_sae)
        self.k: int
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, **axes)

    def candidates(self, pre_acts: Float[Tensor, "d_sae rows"], context: Context) -> Candidates:
        """Each row's own choice."""
        return row_top_k(pre_acts, self.k, context)

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents."""
        return (AuxK(),)
