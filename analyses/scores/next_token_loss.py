"""The loss of a language model (Bengio et al. 2003, https://www.jmlr.org/papers/v3/bengio03a.html)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from analyses.scores.base import Pass, Score


@dataclass(frozen=True)
class NextTokenLoss(Score):
    """Cross-entropy of each example's next tokens, in nats, its mean over those that are predicted.

    The score is the loss itself: a map is positive where a position raises it, and negative where it helps to predict.
    """

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The losses.

        Raises:
            ValueError: If the model does not predict tokens, or an example has fewer than two.
        """
        losses = self._of_tokens(run)
        mask = run.inputs.mask
        # A prediction needs a token to be made from, and one to be made of.
        counted = torch.ones_like(losses) if mask is None else (mask[:, :-1] & mask[:, 1:]).to(losses)
        predicted = counted.sum(dim=1)
        if (predicted == 0).any():
            raise ValueError(
                f"{int((predicted == 0).sum())} of {len(losses)} examples have fewer than two tokens, of which none is "
                "predicted: leave them out."
            )
        return (losses * counted).sum(dim=1) / predicted

    def loss(self, run: Pass) -> Float[Tensor, " b"]:
        """The score, which is a loss already."""
        return self(run)

    def _of_tokens(self, run: Pass) -> Float[Tensor, "b p_minus_1"]:
        own = getattr(run.model, "token_losses", None)
        if own is not None:
            return own(run.output, run.inputs)
        logits, ids = run.logits(), run.inputs.tensors.get("input_ids")
        if ids is None or logits.ndim != 3 or logits.shape[:2] != ids.shape:
            found = None if ids is None else list(ids.shape)
            raise ValueError(
                f"{run.model.name} gives logits of shape {list(logits.shape)} for input_ids of shape {found}, but the "
                "next token is predicted by [b, p, vocabulary] from [b, p]: choose another score."
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:].to(logits.device), reduction="none")
