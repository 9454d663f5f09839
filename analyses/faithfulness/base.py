"""What a judge of maps is: one number an example, of maps and whatever made them."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from analyses.maps import grown
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from interp.models.base import Model
from interp.models.torch_module import INPUT
from interp.types import Geometry, Inputs, Site

Attributor = Callable[[Model, Inputs, Any], Tensor]


@dataclass(frozen=True)
class Case:
    """What is judged: maps of a batch of examples, and all that is needed to make others.

    Args:
        attributor: From a model, inputs and a score to maps, `[b, *grid]`, padded positions 0.
        model: What is explained.
        inputs: Of which examples.
        score: What of it, a class that was the example's own choice held fixed.
        site: Where the maps lie.
        truth: Where the object is, in positions of the input; None where nobody knows.
        other: Another score of the same examples, of which a map should be another; None for none.
        batch_size: Examples that run at once.
    """

    attributor: Attributor
    model: Model
    inputs: Inputs
    score: Any
    site: Site
    truth: Shaped[Tensor, " b *whole"] | None = None
    other: Any = None
    batch_size: int = 32

    @functools.cached_property
    def maps(self) -> Float[Tensor, " b *grid"]:
        """The maps that are judged."""
        return self.again(self.inputs)

    def again(self, inputs: Inputs, score: Any = None) -> Float[Tensor, " b *grid"]:
        """Maps of other inputs or another score, or of the model as it is now.

        Raises:
            ValueError: If the attributor does not give one finite map an example.
        """
        maps = self.attributor(self.model, inputs, self.score if score is None else score)
        if len(maps) != len(inputs) or maps.ndim < 2 or not bool(maps.isfinite().all()):
            raise ValueError(
                f"the attributor gave {list(maps.shape)} for {len(inputs)} examples, or numbers that are not finite, "
                "but a judge needs one finite map each: return [b, *grid]."
            )
        return maps.detach()

    @functools.cached_property
    def hidden(self) -> Site:
        """Where positions are taken away: the input where it has a grid, else where the maps lie."""
        if INPUT in self.model.sites():
            whole = self.model.site(INPUT)
            if self.model.geometry(whole, self.inputs).grid:
                return whole
        return self.site

    @functools.cached_property
    def geometry(self) -> Geometry:
        """How the positions of the site lie in the input."""
        return self.model.geometry(self.site, self.inputs)

    @functools.cached_property
    def shown(self) -> Float[Tensor, " b *whole"]:
        """The maps where positions are taken away: grown to the input where that is it.

        Raises:
            ValueError: If maps have the grid of neither, or the geometry does not say where they lie.
        """
        grid = self.model.geometry(self.hidden, self.inputs).grid
        if not grid or tuple(self.maps.shape[1:]) == grid:
            return self.maps
        if tuple(self.maps.shape[1:]) != self.geometry.grid:
            raise ValueError(
                f"maps have the grid {list(self.maps.shape[1:])}, but {self.site} has {list(self.geometry.grid)} and "
                f"{self.hidden} {list(grid)}: return maps of one of these."
            )
        return grown(self.maps, self.geometry, None, str(self.site), lead=1)

    def runs(self) -> Iterator[tuple[Runner, Float[Tensor, " n *whole"]]]:
        """Examples that have the same positions, at the place where these are taken away, with their maps."""
        scorer = Scorer(self.model, self.score)
        for chunk in Examples.all(self.inputs).chunks(self.batch_size):
            for group in chunk.alike():
                runner = Runner(scorer, group, self.hidden, batch_size=self.batch_size)
                maps = self.shown[group.numbers.to(self.shown.device)]
                yield runner, maps if runner.kept is None else maps[:, : runner.kept.shape[1]]

    def kept(self, maps: Float[Tensor, " b *grid"]) -> Bool[Tensor, " b *grid"]:
        """Which positions of maps hold data."""
        mask = self.inputs.mask
        if mask is None or maps.ndim != 2:
            return torch.ones_like(maps, dtype=torch.bool)
        held = mask[:, mask.shape[1] - maps.shape[1] :] if mask.shape[1] >= maps.shape[1] else mask
        return held.to(maps.device) if held.shape == maps.shape else torch.ones_like(maps, dtype=torch.bool)


class Judge(ABC):
    """One number an example. The constructor is the configuration and takes no required argument.

    `better` says which way is up; `sanity` that it is run unless others are named; `limit` where a mean on the wrong
    side of it means that a method fails; `needs` what a case must have beside maps.
    """

    better: ClassVar[Literal["higher", "lower"]]
    sanity: ClassVar[bool] = False
    limit: ClassVar[float | None] = None
    needs: ClassVar[Literal["truth", "other"] | None] = None

    @abstractmethod
    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The numbers, in the order of the examples.

        Raises:
            ValueError: If the case lacks what the judge needs.
        """


def over_runs(case: Case, judged: Callable[[Runner, Tensor], Float[Tensor, " n"]]) -> Float[Tensor, " b"]:
    """The numbers of a judge that runs the model, example by example in order.

    Args:
        case: What is judged.
        judged: From some examples and their maps to their numbers.
    """
    found = case.maps.new_empty(len(case.inputs))
    for runner, maps in case.runs():
        found[runner.examples.numbers.to(found.device)] = judged(runner, maps).to(found)
    return found
