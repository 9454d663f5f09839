"""JumpReLU (Rajamanoharan et al. 2024, https://arxiv.org/abs/2407.14435)."""

import math
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from interp.types import Latents
from saes.axes import Axes
from saes.base import SAE
from saes.engine.dense import DenseLatents
from saes.penalties.aux_k import AuxK
from saes.penalties.l0 import L0

PRESS = 0.1
"""Part of the excess of L0 by which thresholds rise at once. L0 falls by two to four times a rise: stable to 0.3."""


class JumpReLU(SAE):
    """Keep every pre-activation above its feature's learned threshold.

    The threshold has no gradient of its own: what the loss would gain or lose is estimated from the entries within
    half a bandwidth of it (equations 11 and 12). Its logarithm is what is learned, so that it stays positive.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        bandwidth: Width of the window around a threshold, in units of training (unit variance a dimension). The paper
            has 1e-3 for rows of unit norm; wide windows hear of a threshold in every batch.
        threshold: Where every threshold starts, in units of training.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.

    Raises:
        ValueError: If `bandwidth` or `threshold` is not positive.
    """

    def __init__(
        self,
        *,
        d_in: int,
        d_sae: int,
        bandwidth: float = 0.5,
        threshold: float = 0.5,
        seed: int = 0,
        **axes: Unpack[Axes],
    ) -> None:
        for name, value in (("bandwidth", bandwidth), ("threshold", threshold)):
            if not value > 0:
                raise ValueError(f"{name} is {value}, but it is positive: 0.5 suits inputs of unit variance.")
        self.bandwidth: float
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, bandwidth=bandwidth, threshold=threshold, **axes)
        self.log_threshold = nn.Parameter(torch.full((d_sae,), math.log(threshold)))

    def bound(self) -> Float[Tensor, " d_sae"]:
        """In training the lower end of the window; else the threshold."""
        thresholds = self.log_threshold.detach().exp()
        return thresholds - self.bandwidth / 2 if self.training else thresholds

    def activate(
        self, pre_acts: Float[Tensor, "..."], support: Latents | DenseLatents
    ) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
        """The pre-activation where it is above the threshold, else 0; how many are, for L0; both sides, for PreActs."""
        codes, firing = _Jump.apply(pre_acts, self.log_threshold, support, self.bandwidth)
        return codes, {"firing": firing, "pre_acts": pre_acts, "thresholds": self.log_threshold.exp()}

    def rescale_latents(self, scale: float) -> None:
        """Thresholds are among what is in units of the latents."""
        super().rescale_latents(scale)
        self.log_threshold.sub_(math.log(scale))

    def press(self, excess: Float[Tensor, ""]) -> None:
        """Raise all thresholds by the same factor while too many latents fire."""
        self.log_threshold.add_(PRESS * excess)

    def default_penalties(self) -> tuple[Any, ...]:
        """L0 raises the thresholds, and AuxK revives the latents that it silences."""
        return (L0(), AuxK())


class _Jump(torch.autograd.Function):
    """Codes, differentiable in both, and the number of those that fire, differentiable in the thresholds."""

    @staticmethod
    def forward(
        ctx: Any, pre_acts: Tensor, log_threshold: Tensor, support: Latents | DenseLatents, bandwidth: float
    ) -> tuple[Tensor, Tensor]:
        thresholds = support.spread(log_threshold.exp())
        fires = pre_acts > thresholds
        ctx.save_for_backward(pre_acts, thresholds, fires)
        ctx.support, ctx.bandwidth = support, bandwidth
        return pre_acts * fires, fires.sum().to(pre_acts.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_firing: Tensor) -> tuple[Tensor, Tensor, None, None]:
        pre_acts, thresholds, fires = ctx.saved_tensors
        # The rectangle kernel over the distance to the threshold, of area 1; d threshold / d log = threshold.
        near = (pre_acts - thresholds).abs_() < ctx.bandwidth / 2
        if isinstance(ctx.support, Latents) and not near.is_cuda:
            at = near.nonzero().squeeze(1)  # Few are near, and the rest is not read; a GPU would wait to hear how many.
            slopes, thresholds = (part.index_select(0, at) for part in (grad, thresholds))
            sums = ctx.support.feature_sums(slopes.mul_(thresholds).add_(grad_firing).mul_(thresholds), at)
        else:
            sums = ctx.support.feature_sums((grad * thresholds).add_(grad_firing).mul_(thresholds).mul_(near))
        return grad * fires, sums.div_(-ctx.bandwidth), None, None
