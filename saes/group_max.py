"""GroupMax (EleutherAI's sparsify, 2025, https://github.com/EleutherAI/sparsify)."""

from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from saes.arguments import check_k
from saes.axes import Axes
from saes.base import SAE
from saes.engine.selection import Candidates, Context
from saes.penalties.aux_k import AuxK


class GroupMax(SAE):
    """Cut the features into `k` groups of equal size and keep, for each input, the largest of each group.

    A maximum is found faster than the `k` largest, but two features of one group never fire together. What is largest
    and not positive becomes zero, as everywhere.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents, a multiple of `k`.
        k: Number of groups, of `d_sae / k` successive features each; the L0 of every row is at most `k`.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `k` is not in `1..d_sae`, or does not divide `d_sae`.
    """

    by_feature = False

    def __init__(self, *, d_in: int, d_sae: int, k: int = 32, seed: int = 0, **axes: Unpack[Axes]) -> None:
        check_k("k", k, d_sae)
        if d_sae % k:
            raise ValueError(
                f"k is {k}, but groups of equal size need a divisor of d_sae = {d_sae}: "
                f"choose another k, or d_sae = {-(-d_sae // k) * k}."
            )
        self.k: int
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, **axes)

    def candidates(self, pre_acts: Float[Tensor, "d_sae rows"], context: Context) -> Candidates:
        """The winner of each group."""
        values, places = pre_acts.unflatten(0, (self.k, -1)).max(dim=1)
        first = torch.arange(0, self.d_sae, self.d_sae // self.k, device=places.device)
        rows = torch.arange(context.start, context.start + places.shape[1], device=places.device)
        return Candidates(rows.repeat_interleave(self.k), (places.T + first).flatten(), values.T.flatten(), k=self.k)

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents."""
        return (AuxK(),)
