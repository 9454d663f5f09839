"""AbsTopK (Zhu et al. 2025, https://arxiv.org/abs/2510.00404)."""

from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor

from interp.types import Latents
from saes.arguments import check_k
from saes.axes import Axes
from saes.base import SAE
from saes.engine.choices import row_top_k
from saes.engine.dense import DenseLatents
from saes.engine.selection import Candidates, Context
from saes.penalties.aux_k import AuxK


class AbsTopK(SAE):
    """Keep the `k` pre-activations of each input that are largest in size, with their signs.

    One feature can then stand for both ends of an axis: its decoder row, and the opposite of it.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input; the L0 of every row is at most `k`.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `k` is not in `1..d_sae`.
    """

    signed = True
    by_feature = False

    def __init__(self, *, d_in: int, d_sae: int, k: int = 32, seed: int = 0, **axes: Unpack[Axes]) -> None:
        check_k("k", k, d_sae)
        self.k: int
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, **axes)

    def candidates(self, pre_acts: Float[Tensor, "d_sae rows"], context: Context) -> Candidates:
        """Each row's own choice."""
        return row_top_k(pre_acts, self.k, context, scores=pre_acts.abs())

    def activate(
        self, pre_acts: Float[Tensor, "..."], support: Latents | DenseLatents
    ) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
        """The pre-activations as they are."""
        return pre_acts, {}

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents."""
        return (AuxK(),)
