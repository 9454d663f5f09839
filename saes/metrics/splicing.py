"""A model run with the activations of a site left alone, replaced by reconstructions, or ablated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.capturing import edited
from interp.types import ActivationStore, Directions, Inputs, Model, Site

if TYPE_CHECKING:

    class TextModel(Model, Protocol):
        """A model of tokens."""

        is_causal: bool

        def collate(self, token_ids: Sequence[Tensor]) -> Inputs:
            """Pad examples to one batch."""
            ...

        def embedding(self, output: Any, inputs: Inputs) -> Tensor:
            """One vector an example."""
            ...

        def token_losses(self, output: Any, inputs: Inputs) -> Tensor:
            """Cross-entropy of each next token; zero where it is padding."""
            ...
else:
    # Checking the protocol while running would read each of its members, and reading a fingerprint hashes the weights.
    TextModel = Any


@dataclass(frozen=True)
class Splice:
    """One batch of examples, ready to be run with edits at one site.

    Only positions that the store kept are edited: what the harvest left out (special tokens, say) stays clean.

    Args:
        model: The model.
        inputs: The batch.
        site: Where the edits are made.
        keep: Positions of each example that the store holds.
        directions: What reconstructs.
        mean: Mean activation, for mean ablation.
    """

    model: TextModel
    inputs: Inputs
    site: Site
    keep: Bool[Tensor, "b p"]
    directions: Directions
    mean: Float[Tensor, " d_in"]

    @classmethod
    def of(
        cls, model: TextModel, store: ActivationStore, directions: Directions, examples: Sequence[int], mean: Tensor
    ) -> "Splice":
        """Gather some examples of a store.

        Raises:
            ValueError: If the store's items have no tokens.
        """
        tokens = [part for part in (store.items[i].tokens for i in examples) if part is not None]
        if len(tokens) < len(examples):
            raise ValueError(
                f"model is given, but items of the store ({store.site}) hold no tokens to run it on: "
                "harvest a text dataset, or evaluate without model=."
            )
        inputs = model.collate(tokens)
        keep = torch.zeros(len(examples), max(len(part) for part in tokens), dtype=torch.bool)
        for row, example in enumerate(examples):
            keep[row, store.example(example).position.cpu()] = True
        return cls(model, inputs, model.site(store.site), keep, directions, mean)

    def clean(self) -> Any:
        """The model's output, nothing edited."""
        return self.model.forward(self.inputs)

    def reconstructed(self) -> Any:
        """Its output with reconstructions in place of the activations."""
        dtype, device = self.directions.W_dec.dtype, self.directions.W_dec.device
        return self._edited(lambda rows: self.directions.decode(self.directions.encode(rows.to(device, dtype))))

    def ablated(self, by: str) -> Any:
        """Its output with activations replaced by `zero` or by the store's `mean`."""
        return self._edited(lambda rows: torch.zeros_like(rows) if by == "zero" else self.mean.to(rows).expand_as(rows))

    def _edited(self, change: Callable[[Tensor], Tensor]) -> Any:
        def edit(value: Tensor) -> Tensor:
            flat = value.flatten(2) if value.ndim > 2 else value
            if flat.shape[:2] != self.keep.shape or flat.shape[2:] != (self.directions.d_in,):
                raise ValueError(
                    f"{self.site} holds a tensor of shape {list(value.shape)} for {list(self.keep.shape)} tokens, but "
                    f"reconstructions of width {self.directions.d_in} stand at one token each: evaluate without model=."
                )
            keep = self.keep.to(flat.device)
            new = flat.clone()
            new[keep] = change(flat[keep]).to(flat)
            return new.view_as(value)

        with edited(self.model, {self.site: edit}):
            return self.model.forward(self.inputs)
