"""What a text model returns, and what is computed from it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.types import Inputs


@dataclass(frozen=True)
class TextOutput:
    """What a text model returns.

    Args:
        hidden: The last hidden state, after the final norm where there is one.
        logits: Scores of the vocabulary; None for an encoder without a trained head.
    """

    hidden: Float[Tensor, "b p d"]
    logits: Float[Tensor, "b p v"] | None


def mean_hidden(output: TextOutput, inputs: Inputs) -> Float[Tensor, "b d"]:
    """Mean of the last hidden state over the positions that hold tokens."""
    if inputs.mask is None:
        return output.hidden.mean(dim=1)
    weights = inputs.mask.to(output.hidden)[:, :, None]
    return (output.hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def next_token_losses(output: TextOutput, inputs: Inputs) -> Float[Tensor, "b p_minus_1"]:
    """Cross-entropy of each next token in nats, position by position; zero where the next token is padding."""
    assert output.logits is not None
    target = inputs.tensors["input_ids"][:, 1:].to(output.logits.device)
    logits = output.logits.to(torch.promote_types(output.logits.dtype, torch.float32))
    losses = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), target, reduction="none")
    return losses if inputs.mask is None else losses * inputs.mask[:, 1:].to(losses)
