"""Loss recovered: how much of a language model's work survives the reconstruction (Bricken et al. 2023)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.base import ModelMetric, Splice


class LossRecovered(ModelMetric):
    """(L_ablated - L_reconstructed) / (L_ablated - L_clean), L the next-token cross-entropy, one ratio over all tokens.

    1 is as good as the activations themselves, 0 as good as their ablation. Only positions that the store holds are
    replaced; the loss counts all tokens of their examples.

    Args:
        ablation: What "nothing" is: `zero` activations, as is usual, or their `mean`, which is harder to beat.
    """

    name = "loss_recovered"

    def __init__(self, ablation: Literal["zero", "mean"] = "zero") -> None:
        self.ablation = ablation

    def applies(self, model: object) -> bool:
        """For models that predict the next token."""
        return bool(getattr(model, "is_causal", False))

    def statistics(self, splice: Splice) -> Float[Tensor, "b 3"]:
        """Cross-entropy in nats, summed over the tokens of each example: clean, reconstructed, ablated."""
        outputs = (splice.clean(), splice.reconstructed(), splice.ablated(self.ablation))
        losses = [splice.model.token_losses(output, splice.inputs) for output in outputs]
        return torch.stack([loss.double().sum(dim=1) for loss in losses], dim=1)

    def value(self, totals: Float[Tensor, "*resamples 3"]) -> Float[Tensor, "*resamples"]:
        """The ratio; undefined where the ablation costs nothing."""
        clean, reconstructed, ablated = totals.unbind(-1)
        return (ablated - reconstructed) / (ablated - clean)
