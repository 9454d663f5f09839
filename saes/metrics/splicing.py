"""A model run with the activations of a site left alone, replaced by reconstructions, or ablated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.capturing import edited
from interp.editing import ablate
from interp.splicing import spliced
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
        with spliced(self.model, self.site, self.directions, positions=self.keep, inputs=self.inputs):
            return self.model.forward(self.inputs)

    def ablated(self, by: Literal["zero", "mean"]) -> Any:
        """Its output with activations replaced by `zero` or by the store's `mean`."""
        edit = ablate(to="zero" if by == "zero" else self.mean, positions=self.keep)
        with edited(self.model, {self.site: edit}, inputs=self.inputs):
            return self.model.forward(self.inputs)
