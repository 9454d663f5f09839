"""Multi-TopK (Gao et al. 2024, appendix A.3, https://arxiv.org/abs/2406.04093)."""

from typing import Any, Unpack

import torch
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
from saes.penalties.multi_k import MultiK

WIDER = 4
"""How many times `k` latents the second reconstruction has."""


class MultiTopK(SAE):
    """TopK whose training also asks for a reconstruction from the `4 k` largest pre-activations of each input.

    So that codes stay of use where more than `k` latents are kept. Evaluation is that of TopK.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input; the L0 of every row is at most `k`.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `k` is not in `1..d_sae`.
    """

    by_feature = False

    def __init__(self, *, d_in: int, d_sae: int, k: int = 32, seed: int = 0, **axes: Unpack[Axes]) -> None:
        check_k("k", k, d_sae)
        self.k: int
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, **axes)

    @property
    def _wide(self) -> int:
        return min(WIDER * self.k, self.d_sae)

    def candidates(self, pre_acts: Float[Tensor, "d_sae rows"], context: Context) -> Candidates:
        """Each row's own choice: in training the `4 k` largest."""
        return row_top_k(pre_acts, self._wide if context.training else self.k, context)

    def activate(
        self, pre_acts: Float[Tensor, "..."], support: Latents | DenseLatents
    ) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
        """The positive part of the `k` largest; in training also that of those which follow, as `further`."""
        codes = torch.relu(pre_acts)
        if not self.training:
            return codes, {}
        by_row = pre_acts.detach().view(-1, self.d_sae if isinstance(support, DenseLatents) else self._wide)
        first, wide = _largest(by_row, self.k), _largest(by_row, self._wide)
        return codes * first.view_as(codes), {"further": codes * (wide - first).view_as(codes)}

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents; MultiK is the second reconstruction."""
        return (AuxK(), MultiK())


def _largest(values: Float[Tensor, "n m"], k: int) -> Float[Tensor, "n m"]:
    """1 for the `k` largest of each row, 0 for the others."""
    if k == values.shape[1]:
        return torch.ones_like(values)
    return torch.zeros_like(values).scatter_(1, values.topk(k, dim=1, sorted=False).indices, 1.0)
