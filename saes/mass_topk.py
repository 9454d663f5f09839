"""MassTopK, after the masks of dynamic pruning (Elkerdawy et al. 2021, https://arxiv.org/abs/2110.08232)."""

from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from saes.arguments import check_k
from saes.axes import Axes
from saes.base import SAE
from saes.engine.choices import row_top_k
from saes.engine.selection import Candidates, Context
from saes.penalties.aux_k import AuxK


class MassTopK(SAE):
    """Keep as few latents of each input as hold a share of the sum of its positive pre-activations.

    The paper finds in this way how many filters of a layer an image needs, and trains a linear predictor of them to
    save the layer's work. Here the encoder is such a predictor already, so only the rule is taken over.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        mass: Share of the sum that is kept, in (0, 1]; 1 keeps every positive pre-activation. A job's `target_l0` moves
            it.
        k_max: Most latents kept per input, where the share would take more.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `mass` is not in (0, 1], or `k_max` not in `1..d_sae`.
    """

    share: Tensor
    by_feature = False

    def __init__(
        self, *, d_in: int, d_sae: int, mass: float = 0.5, k_max: int = 64, seed: int = 0, **axes: Unpack[Axes]
    ) -> None:
        check_k("k_max", k_max, d_sae)
        if not 0 < mass <= 1:
            raise ValueError(f"mass is {mass}, but it is a share in (0, 1]: 0.5 keeps half of the sum.")
        self.k_max: int
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, mass=mass, k_max=k_max, **axes)
        self.register_buffer("share", torch.tensor(float(mass)))

    def candidates(self, pre_acts: Float[Tensor, "d_sae rows"], context: Context) -> Candidates:
        """Each row's own choice."""
        largest = row_top_k(pre_acts, self.k_max, context)
        positive = context.scratch("positive", pre_acts, *pre_acts.shape)
        total = torch.clamp(pre_acts, min=0, out=positive).sum(dim=0)
        values, order = largest.values.view(-1, self.k_max).sort(dim=1, descending=True)
        before = values.cumsum(dim=1) - values
        enough = self.share * total.unsqueeze(1)
        needed = ((before < enough) | (self.share >= 1)) & (values > 0)  # Rounded sums would lose the smallest.
        return largest.keep(torch.empty_like(needed).scatter_(1, order, needed).view(-1))

    def press(self, excess: Float[Tensor, ""]) -> None:
        """A smaller share of every row is kept while too many latents are."""
        self.share.mul_(torch.exp(-0.1 * excess)).clamp_(1e-4, 1.0)

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents."""
        return (AuxK(),)
