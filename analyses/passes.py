"""Passes of a model over examples, a chunk at a time, with one score an example."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.scores.base import Pass, Score
from interp.captured import Capture
from interp.capturing import capture
from interp.models.base import Model
from interp.types import Inputs, Site


@dataclass(frozen=True)
class Scorer:
    """A model and what is asked of it.

    Args:
        model: The model.
        score: One of `analyses.scores`, or a function from what the model's forward returns to one number an example;
            None where nothing is asked.
    """

    model: Model
    score: Any

    def run(self, inputs: Inputs, sites: Sequence[Site] = (), *, grads: bool = True) -> Capture:
        """One pass: activations at some sites, scores where they are asked for, and their gradients.

        Args:
            inputs: One batch.
            sites: Where activations are read.
            grads: Take gradients too.

        Raises:
            ValueError: If the score is not one number an example, or as `capture`.
        """
        if self.score is None:
            return capture(self.model, inputs, sites)
        reads = self.score.sites if isinstance(self.score, Score) else ()
        return capture(self.model, inputs, sites, score=_Of(self, inputs), reads=reads, grads=grads)

    def of(self, inputs: Inputs, output: Any, values: dict[Site, Tensor]) -> Float[Tensor, " b"]:
        """The scores of a pass."""
        if isinstance(self.score, Score):
            geometries = {site: self.model.geometry(site, inputs) for site in values}
            found = self.score(Pass(self.model, inputs, output, values, geometries))
        else:
            found = self.score(output)
        if not isinstance(found, Tensor) or found.shape != (len(inputs),):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"score gave {shape} for {len(inputs)} examples, but maps need one number an example: return a tensor "
                f"of shape [{len(inputs)}]."
            )
        return found


@dataclass(frozen=True)
class _Of:
    """What `capture` calls. No closure: the tests' shape checks would compile it at each call."""

    scorer: Scorer
    inputs: Inputs

    def __call__(self, output: Any, values: dict[Site, Tensor] | None = None) -> Tensor:
        return self.scorer.of(self.inputs, output, values or {})


class Passes:
    """One pass for each chunk of examples; a single one is kept, several are run again when asked.

    Args:
        scorer: The model and the score.
        inputs: The examples.
        sites: Where activations are read.
        batch_size: Examples that run at once.
    """

    def __init__(self, scorer: Scorer, inputs: Inputs, sites: Sequence[Site], batch_size: int) -> None:
        self._scorer, self._inputs, self._sites = scorer, inputs, sites
        self._starts = range(0, len(inputs), batch_size)
        self._kept: Capture | None = None

    def __iter__(self) -> Iterator[tuple[int, Capture]]:
        """The number of the first example of each chunk, and what its pass gave."""
        for start in self._starts:
            found = self._kept or self._scorer.run(
                some(self._inputs, slice(start, start + self._starts.step)), self._sites
            )
            if len(self._starts) == 1:
                self._kept = found
            yield start, found


def some(inputs: Inputs, chosen: slice | Int[Tensor, " n"]) -> Inputs:
    """Some examples of a batch."""
    mask = None if inputs.mask is None else inputs.mask[chosen]
    return Inputs({name: value[chosen] for name, value in inputs.tensors.items()}, mask)


def alike(inputs: Inputs) -> Iterator[tuple[Int[Tensor, " n"], Inputs]]:
    """Examples of one length together, padding on the right cut off, so that nothing that is done to all positions is
    done to padding: their places in the batch, and their inputs."""
    mask = inputs.mask
    if mask is None or bool(mask.all()):
        yield torch.arange(len(inputs)), inputs
        return
    lengths = mask.sum(dim=1)
    on_the_right = (mask.cumsum(dim=1)[:, -1:] >= torch.arange(1, mask.shape[1] + 1, device=mask.device)) == mask
    lengths = torch.where(on_the_right.all(dim=1), lengths, mask.shape[1])
    for length in torch.unique(lengths).tolist():
        members = (lengths == length).nonzero()[:, 0].cpu()
        group = some(inputs, members)
        cut = {
            name: value[:, :length] if value.shape[:2] == group.mask.shape else value  # type: ignore[union-attr]
            for name, value in group.tensors.items()
        }
        yield members, Inputs(cut, group.mask[:, :length])  # type: ignore[index]
