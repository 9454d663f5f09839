"""Embeddings of examples, for scores that compare with a reference."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.passes import Examples
from analyses.scores.base import Pass
from interp.capturing import left_as_found
from interp.models.base import Model
from interp.types import Inputs


def embedding_of(model: Model, inputs: Inputs, *, batch_size: int = 32) -> Float[Tensor, "b d"]:
    """One vector an example, without a gradient: the model's own embedding, or what its forward returns.

    Args:
        model: The model; it runs in eval mode and is left as it was found.
        inputs: The examples.
        batch_size: Examples that run at once.

    Raises:
        ValueError: If the model has no embedding.
    """
    found = []
    with left_as_found(model, frozen=False), torch.inference_mode(False), torch.no_grad():
        for chunk in Examples.all(inputs).chunks(batch_size):
            found.append(Pass(model, chunk.inputs, model.forward(chunk.inputs)).embedding())
        return torch.cat(found)
