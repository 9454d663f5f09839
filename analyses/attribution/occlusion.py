"""Occlusion (Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True)
class Occlusion(ModelMethod):
    """How much the score falls when a window is covered, for each position averaged over the windows on it.

    In units of the score.

    Args:
        window: Positions a side.
        stride: Positions from one window to the next; the last one along an axis ends at the edge.
        baseline: What covered activations are.

    Raises:
        ValueError: If the window or the stride is less than 1, or the stride leaves positions uncovered.
    """

    window: int = 4
    stride: int = 2
    baseline: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise ValueError(
                f"window is {self.window} and stride {self.stride}, but windows cover every position: choose "
                "1 <= stride <= window."
            )

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        values, base = runner.values, runner.scores()
        grid = tuple(runner.vectors(values).shape[1:-1])
        falls, times = base.new_zeros(len(values), *grid), base.new_zeros(grid)
        covered = (self._covered(runner, place) for place in self._windows(grid))
        for place, scores in zip(self._windows(grid), runner.scores_of(covered), strict=True):
            falls[(slice(None), *place)] += (base - scores).view(-1, *[1] * len(grid))
            times[place] += 1
        return falls / times, {}

    def _covered(self, runner: Runner, place: tuple[slice, ...]) -> Tensor:
        values = runner.values.clone()
        runner.vectors(values)[(slice(None), *place)] = self.baseline
        return values

    def _windows(self, grid: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        starts = []
        for size in grid:
            last = max(size - self.window, 0)
            starts.append(dict.fromkeys([*range(0, last, self.stride), last]))
        for corner in itertools.product(*starts):
            yield tuple(slice(start, start + self.window) for start in corner)
