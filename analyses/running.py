"""A model run again and again with the activations of one site replaced, for methods that look at it from outside."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.passes import scored
from interp.captured import channels_last
from interp.capturing import capture, edited, left_as_found
from interp.models.base import Model
from interp.types import Geometry, Inputs, Site


class Runner:
    """Some examples, their activations at a site, and what the score would be with others in their place.

    However many are asked for, at most `batch_size` examples run at once. The model is left as it was found.

    Args:
        model: The model.
        inputs: The examples.
        site: Where activations are replaced; the model's input is one (`input`).
        score: What is asked: one of `analyses.scores`, or a function from what the model's forward returns.
        batch_size: Examples that run at once.
    """

    def __init__(self, model: Model, inputs: Inputs, site: Site, score: Any, *, batch_size: int = 32) -> None:
        self.model, self.inputs, self.site, self.score, self.batch_size = model, inputs, site, score, batch_size

    def __len__(self) -> int:
        return len(self.inputs)

    @functools.cached_property
    def values(self) -> Tensor:
        """The activations of all examples, as the model makes them."""
        chunks = torch.arange(len(self)).split(self.batch_size)
        return torch.cat([capture(self.model, self._of(some), self.site).values[self.site] for some in chunks])

    @functools.cached_property
    def geometry(self) -> Geometry:
        """How their positions are laid out."""
        return self.model.geometry(self.site, self.inputs)

    def vectors(self, values: Tensor) -> Float[Tensor, "b *grid d"]:
        """Activations, or anything of their shape, as one vector a position, prefix tokens left out: a view."""
        seen = channels_last(values, self.geometry, self.site)
        prefix, grid = self.geometry.prefix, self.geometry.grid
        return seen[:, prefix:].unflatten(1, grid) if grid and seen.ndim == 3 else seen[:, prefix:] if prefix else seen

    def scores(
        self, values: Tensor | None = None, examples: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, " n"]:
        """Scores with activations replaced.

        Args:
            values: What takes their place, one for each of the examples; None to leave them as they are.
            examples: Which example each belongs to; all in order by default.
        """
        with torch.no_grad():
            return torch.cat([self._run(part, some) for part, some in self._chunks(values, examples)])

    def gradients(
        self, values: Tensor | None = None, examples: Int[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, " n"], Tensor]:
        """Scores, and the gradient of each with respect to what took the place of its activations.

        Args:
            values: As in `scores`; None for the activations themselves.
            examples: As in `scores`.

        Raises:
            ValueError: If no score depends on the site.
        """
        found, slopes = [], []
        for part, some in self._chunks(self.values if values is None else values, examples):
            assert part is not None
            with torch.enable_grad():
                leaf = part.detach().clone().requires_grad_()
                scores = self._run(leaf, some)
                (grads,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True, materialize_grads=True)
            found.append(scores.detach())
            slopes.append(grads)
        return torch.cat(found), torch.cat(slopes)

    def _chunks(
        self, values: Tensor | None, examples: Int[Tensor, " n"] | None
    ) -> Iterator[tuple[Tensor | None, Int[Tensor, " m"]]]:
        examples = torch.arange(len(self)) if examples is None else examples
        assert values is None or len(values) == len(examples)
        for start in range(0, len(examples), self.batch_size):
            stop = start + self.batch_size
            yield None if values is None else values[start:stop], examples[start:stop]

    def _run(self, values: Tensor | None, examples: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        inputs = self._of(examples)
        edits = {} if values is None else {self.site: lambda native: values.to(native)}
        with left_as_found(self.model, frozen=True), edited(self.model, edits, inputs=inputs):
            return scored(self.model, inputs, self.score)

    def _of(self, examples: Int[Tensor, " n"]) -> Inputs:
        mask = self.inputs.mask
        tensors = {name: value[examples.to(value.device)] for name, value in self.inputs.tensors.items()}
        return Inputs(tensors, None if mask is None else mask[examples.to(mask.device)])
