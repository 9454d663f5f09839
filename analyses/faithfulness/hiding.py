"""Scores while positions are taken away, or put back, in the order of a map."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from analyses.faithfulness.base import Case, Judge, over_runs
from analyses.running import Runner
from interp.stores.shuffling import counter_key

Baseline = Literal["zero", "mean", "blur"]
BASELINES = ("zero", "mean", "blur")
_CELLS = 5  # purpose of the counter-based generator
_WIDTH = 5.0  # of the blur, in positions: RISE's for pictures of 224


@dataclass(frozen=True)
class Hiding(Judge):
    """The mean score while positions are taken away step by step, the largest values of a map first or last.

    Args:
        steps: Parts that positions are taken away in.
        baseline: What takes their place: 0, the mean of each channel over the example's positions, or the example
            blurred (grids of two axes).

    Raises:
        ValueError: If there is no such baseline, or no step.
    """

    steps: int = 16
    baseline: Baseline = "mean"

    sanity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.baseline not in BASELINES:
            raise ValueError(
                f"steps is {self.steps} and baseline {self.baseline!r}, but at least one step is needed, and a "
                f"baseline is one of {', '.join(BASELINES)}: choose such."
            )

    @property
    @abstractmethod
    def largest(self) -> bool:
        """Whether the largest values go first."""

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The areas under the curves."""
        return over_runs(case, lambda runner, maps: areas(self.curve(runner, maps)))

    def curve(self, runner: Runner, maps: Float[Tensor, " b *grid"]) -> Float[Tensor, "b steps_plus_1"]:
        """The score with nothing hidden, and after each step, until all is. Equal values go by their place.

        Args:
            runner: The examples, where positions are hidden.
            maps: Their maps.
        """
        order = maps.flatten(1).argsort(dim=1, descending=self.largest, stable=True)
        rank = order.argsort(dim=1)
        hidden = (rank < self._count(step, rank.shape[1]) for step in range(self.steps + 1))
        return torch.stack(list(runner.scores_of(covered(runner, hidden, self.baseline))), dim=1)

    def _count(self, step: int, positions: int) -> int:
        return round(step * positions / self.steps)


def covered(runner: Runner, hidden: Iterator[Bool[Tensor, "b p"]], baseline: Baseline) -> Iterator[Tensor]:
    """Activations with some positions at a baseline.

    Args:
        runner: The examples at a site.
        hidden: Which positions of each, once for each variant.
        baseline: What takes their place.
    """
    seen = runner.vectors(runner.values)
    instead = _baseline(seen, baseline)
    for chosen in hidden:
        values = runner.values.clone()
        where = chosen.view(*seen.shape[:-1], 1).to(seen.device)
        runner.vectors(values).copy_(torch.where(where, instead, seen))
        yield values


def areas(curve: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """The mean height under each curve, straight between its points."""
    return (curve[:, 1:] + curve[:, :-1]).mean(dim=1) / 2


def random_cells(number: int, grid: tuple[int, ...], cells: int, share: float, seed: int) -> Bool[Tensor, " p"]:
    """Positions of some cells of a coarse grid, drawn alike for all examples.

    Args:
        number: Which draw.
        grid: The fine grid.
        cells: Cells an axis; an axis of fewer positions has one for each.
        share: Probability that a cell is among them.
        seed: Names the draws.
    """
    sizes = [min(cells, size) for size in grid]
    chosen = torch.rand(sizes, generator=_generator(seed, number)) < share
    for axis, (size, count) in enumerate(zip(grid, sizes, strict=True)):
        of = torch.arange(size) * count // size
        chosen = chosen.index_select(axis, of)
    return chosen.flatten()


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(counter_key(seed, _CELLS, number, 0)) >> 1)


def _baseline(seen: Float[Tensor, "b *grid d"], baseline: Baseline) -> Float[Tensor, "b *grid d"]:
    if baseline == "zero":
        return torch.zeros_like(seen)
    if baseline == "mean":
        return seen.flatten(1, -2).mean(dim=1).view(len(seen), *[1] * (seen.ndim - 2), -1).expand_as(seen)
    if seen.ndim != 4:
        raise ValueError(f"baseline is 'blur', but a grid of {seen.ndim - 2} axes is no picture: choose 'mean'.")
    for axis in (1, 2):
        seen = _blurred(seen, axis)
    return seen


def _blurred(seen: Float[Tensor, "b h w d"], axis: int) -> Float[Tensor, "b h w d"]:
    size = seen.shape[axis]
    reach = min(int(2 * _WIDTH), size - 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / _WIDTH) ** 2)
    lines = seen.movedim(axis, -1)
    padded = functional.pad(lines.flatten(0, 1), (reach, reach), mode="reflect")
    kernel = (weights / weights.sum()).to(seen).view(1, 1, -1).expand(padded.shape[1], 1, -1)
    return functional.conv1d(padded, kernel, groups=padded.shape[1]).view(lines.shape).movedim(-1, axis)
