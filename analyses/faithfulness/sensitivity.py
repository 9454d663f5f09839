"""Max-sensitivity (Yeh et al. 2019, https://arxiv.org/abs/1901.09392)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.faithfulness.base import Case, Judge
from interp.stores.shuffling import counter_key
from interp.types import Inputs

_MOVES = 7  # purpose of the counter-based generator


@dataclass(frozen=True)
class Sensitivity(Judge):
    """The largest relative change of a map over small moves of the input, drawn evenly up to a radius in each entry.

    Args:
        radius: Largest move of an entry, in units of what the model is given.
        samples: Moves.
        seed: Names them; they are the same for all examples.

    Raises:
        ValueError: If a number is not positive; in use, if the inputs are no numbers that could move (token ids).
    """

    radius: float = 0.02
    samples: int = 10
    seed: int = 0

    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.samples < 1:
            raise ValueError(f"radius is {self.radius} and samples {self.samples}, but both are positive: give such.")

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The changes."""
        name, given = next(iter(case.inputs.tensors.items()))
        if not given.is_floating_point():
            raise ValueError(
                f"the input {name} holds {given.dtype}, which does not move a little: leave Sensitivity out."
            )
        others = (self._moved(given, number) for number in range(self.samples))
        tensors = dict(case.inputs.tensors)
        return largest_change(
            case.maps, (case.again(Inputs(tensors | {name: other}, case.inputs.mask)) for other in others)
        )

    def _moved(self, given: Tensor, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(counter_key(self.seed, _MOVES, number, 0)) >> 1)
        draw = torch.rand(given.shape[1:], generator=generator, dtype=torch.float64)
        return given + ((2 * draw - 1) * self.radius).to(given)


def largest_change(maps: Float[Tensor, " b *grid"], others: Iterable[Float[Tensor, " b *grid"]]) -> Float[Tensor, " b"]:
    """The largest distance of other maps from each map, in lengths of the map.

    Args:
        maps: The maps; one that is 0 has changes in units of its own method.
        others: What they became.
    """
    sizes = maps.flatten(1).norm(dim=1)
    changes = torch.stack([(other - maps).flatten(1).norm(dim=1) for other in others])
    return changes.amax(dim=0) / torch.where(sizes > 0, sizes, torch.ones_like(sizes))
