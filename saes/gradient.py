"""g-SAE (Olmo et al. 2024, https://arxiv.org/abs/2411.10397)."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from saes.arguments import check_k
from saes.axes import Axes
from saes.base import SAE
from saes.engine.choices import row_top_k
from saes.engine.products import by_row
from saes.engine.selection import Candidates, Context
from saes.penalties.aux_k import AuxK


class GradientTopK(SAE):
    """Keep the `k` latents of each input that are large and that a loss would notice.

    A positive pre-activation `z` ranks by `z * (1 + beta * gate)`, where the gate is what the latent does to the loss
    to first order, `|grads @ W_dec.T|`, over the norm of the row's gradient: 1 for a latent that writes along it, 0 for
    one that the loss does not feel. That norm is our addition: it makes beta a pure number, the most by which a gate
    can raise a latent, and the choice the same for any scale of loss and activations. Codes are the unchanged `z`; the
    score has no gradient. With beta 0 it is TopK.

    What is trained is still the squared error, so a latent chosen for its gate learns the main direction of the rows
    that it is chosen in. That is its own feature only while what fires beside it and is left out varies less, along
    any one direction, than it does: many loud features, each of them rare, rather than a few frequent ones.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Latents kept per input; the L0 of every row is at most `k`.
        beta: Weight of the gate, at least 0: a latent along the gradient wins over one that it is orthogonal to where
            its pre-activation is more than 1 / (1 + beta) of the other's.
        selection: `auto` to select by gradient where rows have one and by activation alone where they have none, with
            a warning if that is in training; `act` for activation alone; `grad` to refuse rows without gradients, in
            training and after.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`; it is no transcoder.

    Raises:
        ValueError: If `k` is not in `1..d_sae`, `beta` is negative, `selection` is none of the three, or rows have no
            gradients where `selection` is `grad`.
    """

    by_feature = False
    refuses: ClassVar[Mapping[str, str]] = {"d_out": "weighs what its decoder rows do to a loss at its own input"}

    def __init__(
        self,
        *,
        d_in: int,
        d_sae: int,
        k: int = 32,
        beta: float = 2.0,
        selection: Literal["auto", "act", "grad"] = "auto",
        seed: int = 0,
        **axes: Unpack[Axes],
    ) -> None:
        check_k("k", k, d_sae)
        if not beta >= 0:
            raise ValueError(f"beta is {beta}, but the gate's weight is at least 0: 2 is usual, and 0 is TopK.")
        if selection not in (ways := ("auto", "act", "grad")):
            raise ValueError(f"selection is {selection!r}, but it is one of {', '.join(ways)}: choose one.")
        self.k: int
        self.beta: float
        self.selection: Literal["auto", "act", "grad"]
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, beta=beta, selection=selection, **axes)

    def candidates(self, pre_acts: Float[Tensor, "d_sae rows"], context: Context) -> Candidates:
        """Each row's own choice."""
        if self.beta == 0 or self.selection == "act" or not self._has_gradients(context):
            return row_top_k(pre_acts, self.k, context)
        # In the strides of the pre-activations, which a GPU has a row after a row.
        rowwise = by_row(pre_acts.device, self.by_feature)
        scores = context.scratch("scores", pre_acts, *(pre_acts.T if rowwise else pre_acts).shape)
        scores = scores.T if rowwise else scores
        assert context.grads is not None
        torch.mm(self.W_dec, context.grads.T, out=scores).abs_()
        # Not over the mean of the row: where a loss feels few latents these would win it at any z, so by noise.
        norms = context.grads.norm(dim=1)
        scores.mul_(torch.where(norms > 0, self.beta / norms, 0))  # Where a gradient is zero, z ranks alone.
        return row_top_k(pre_acts, self.k, context, torch.addcmul(pre_acts, pre_acts, scores, out=scores))

    def _has_gradients(self, context: Context) -> bool:
        if context.grads is not None:
            return True
        if self.selection == "grad":
            raise ValueError(
                "selection is 'grad', but the rows have no gradients: harvest with a score, or give "
                "selection='auto' to select these rows by activation alone."
            )
        if context.training:
            warnings.warn(
                f"a GradientTopK with beta {self.beta} trains on rows without gradients, as a TopK would: harvest with "
                "a score, or give beta=0 if that is meant.",
                stacklevel=2,
            )
        return False

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents."""
        return (AuxK(),)


GSAE = GradientTopK
"""The paper's name."""
