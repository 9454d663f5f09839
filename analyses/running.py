"""A model run again and again with the activations of one site replaced, for methods that look at it from outside."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.layers import on_grid
from analyses.passes import Examples, Scorer
from interp.captured import Capture, channels_last
from interp.capturing import capture, edited
from interp.models.torch_module import INPUT
from interp.types import Geometry, Site


class Runner:
    """Some examples, their activations at a site, and what the score would be with others in their place.

    However many are asked for, at most `batch_size` examples run at once. The model is left as it was found.

    Args:
        scorer: The model and the score.
        examples: What runs.
        site: Where activations are replaced; the input of a model is one (`input`).
        batch_size: Examples that run at once.
    """

    def __init__(self, scorer: Scorer, examples: Examples, site: Site, *, batch_size: int = 32) -> None:
        self.scorer, self.examples, self.site, self.batch_size = scorer, examples, site, batch_size
        self.inputs = examples.inputs

    @functools.cached_property
    def values(self) -> Tensor:
        """The activations of all examples, as the model makes them."""
        model, site, chunks = self.scorer.model, self.site, self.examples.chunks(self.batch_size)
        return torch.cat([capture(model, chunk.inputs, site).values[site] for chunk in chunks])

    @functools.cached_property
    def geometry(self) -> Geometry:
        """How their positions are laid out."""
        return self.scorer.model.geometry(self.site, self.inputs)

    def some(self, chosen: Int[Tensor, " n"]) -> "Runner":
        """Some of the examples, by their places here."""
        return Runner(self.scorer, self.examples.some(chosen), self.site, batch_size=self.batch_size)

    def at_input(self) -> "Runner":
        """The same examples at the model's input.

        Raises:
            ValueError: If the input has no grid that a mask could lie on.
        """
        model = self.scorer.model
        if INPUT not in model.sites() or not model.geometry(model.site(INPUT), self.inputs).grid:
            raise ValueError(
                f"{model.name} is given no pixels, on which a mask could lie: choose a method that changes "
                "activations at a site (AblationCAM, Occlusion)."
            )
        return Runner(self.scorer, self.examples, model.site(INPUT), batch_size=self.batch_size)

    @property
    def held(self) -> Bool[Tensor, "b p"] | None:
        """Which positions hold data, prefix tokens counted; None for all."""
        mask = self.inputs.mask
        if mask is None or mask.shape != channels_last(self.values, self.geometry, self.site).shape[:-1]:
            return None
        return mask.to(self.values.device)

    @property
    def kept(self) -> Bool[Tensor, "b p"] | None:
        """Which positions of a map hold data; None for all."""
        return None if self.held is None else self.held[:, self.geometry.prefix :]

    def vectors(self, values: Tensor) -> Float[Tensor, "b *grid d"]:
        """Activations, or anything of their shape, as one vector a position, prefix tokens left out: a view."""
        return on_grid(values, self.geometry, self.site)

    def scores(self, values: Tensor | None = None, examples: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Scores with activations replaced.

        Args:
            values: What takes their place, one for each of the examples; None to leave them as they are.
            examples: Which example each belongs to; all in order by default.
        """
        return _scores([self._run(part, chosen, grads=False) for part, chosen in self._chunks(values, examples)])

    def gradients(
        self, values: Tensor | None = None, examples: Int[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, " n"], Tensor]:
        """Scores, and the gradient of each with respect to what took the place of its activations.

        Args:
            values: As in `scores`.
            examples: As in `scores`.
        """
        found = [self._run(part, chosen, grads=True) for part, chosen in self._chunks(values, examples)]
        return _scores(found), torch.cat([part.grads[self.site] for part in found])

    def scores_of(self, variants: Iterable[Tensor]) -> Iterator[Float[Tensor, " b"]]:
        """Scores of one variant of all activations after the other; few examples run together with several variants.

        Args:
            variants: Tensors as the model makes them, a row an example.
        """
        for values, examples in self._together(variants):
            yield from self.scores(values, examples).split(len(self.inputs))

    def gradients_of(self, variants: Iterable[Tensor]) -> Iterator[Tensor]:
        """Gradients at one variant of all activations after the other, likewise.

        Args:
            variants: As in `scores_of`.
        """
        for values, examples in self._together(variants):
            yield from self.gradients(values, examples)[1].split(len(self.inputs))

    def _together(self, variants: Iterable[Tensor]) -> Iterator[tuple[Tensor, Int[Tensor, " n"]]]:
        b, todo = len(self.inputs), iter(variants)
        while group := list(itertools.islice(todo, max(self.batch_size // b, 1))):
            yield torch.cat(group), torch.arange(b).repeat(len(group))

    def _chunks(
        self, values: Tensor | None, examples: Int[Tensor, " n"] | None
    ) -> Iterator[tuple[Tensor | None, Int[Tensor, " m"]]]:
        examples = torch.arange(len(self.inputs)) if examples is None else examples
        assert values is None or len(values) == len(examples)
        for start in range(0, len(examples), self.batch_size):
            stop = start + self.batch_size
            yield None if values is None else values[start:stop], examples[start:stop]

    def _run(self, values: Tensor | None, examples: Int[Tensor, " n"], *, grads: bool) -> Capture:
        chosen = self.examples.some(examples)
        edits: dict[Site | str, Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]] = {}
        if values is not None:
            edits[self.site] = Given(values)
        with edited(self.scorer.model, edits, inputs=chosen.inputs):
            return self.scorer.run(chosen, [self.site] if grads else [], grads=grads)


def _scores(found: Sequence[Capture]) -> Float[Tensor, " n"]:
    return torch.cat([part.scores for part in found if part.scores is not None])


class Given:
    """An edit that puts a tensor in the place of what the model made first, with whatever graph it has; what a module
    makes in later runs of the same pass stays as it is, as in `capture`."""

    def __init__(self, values: Tensor) -> None:
        self._values: Tensor | None = values

    def __call__(self, native: Tensor) -> Tensor:
        """The tensor, once."""
        if self._values is None:
            return native
        values, self._values = self._values, None
        return values.to(native)
