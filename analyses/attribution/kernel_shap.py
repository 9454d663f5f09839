"""KernelSHAP (Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874)."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner
from interp.stores.shuffling import counter_key

_COALITIONS = 9  # purpose of the counter-based generator


@dataclass(frozen=True)
class KernelSHAP(ModelMethod):
    """Shapley values of positions: what each adds to the score, averaged over all orders in which they come in.

    Positions of a sequence are players; a grid is divided into cells, whose value is spread evenly over their
    positions. The values are those of the additive model that fits the scores of sets of players best, each set
    weighted by Shapley's kernel. They are exact where all sets fit into `samples`, and estimated from random sets and
    their complements otherwise. The sets are the same for all examples, a function of the seed alone. Padding that
    stands elsewhere than on the right is a player too.

    In units of the score: a map adds up to the change of the score from the baseline; `gap` is the sum less the change,
    0 but for rounding. `residual` is how far the scores of sets are from the additive model, root mean square under
    the kernel, the empty and the whole set left out: 0 where players only add up.

    Args:
        samples: Sets of players that are run, at most.
        cells: Cells a side of a grid; None for each position as a player.
        baseline: What the activations of absent players are.
        seed: Names the sets.

    Raises:
        ValueError: If a number is out of its range; in use, if there are fewer than two samples a player.
    """

    samples: int = 1000
    cells: int | None = 7
    baseline: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2 or (self.cells is not None and self.cells < 1):
            raise ValueError(
                f"KernelSHAP has {self.samples} samples and {self.cells} cells, but needs at least two and one: choose "
                "such values."
            )

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps, their gaps and residuals."""
        players, whole = self.players(runner), runner.scores()
        count = int(players.max()) + 1
        empty = runner.scores(torch.full_like(runner.values, self.baseline))
        change = (whole - empty).double()
        sets, weights = self.sets(count)
        shown = (self._shown(runner, chosen, players) for chosen in sets)
        scores = [part - empty for part in runner.scores_of(shown)]
        gains = torch.stack(scores).double() if scores else change.new_zeros(0, len(change))
        sets, weights = sets.to(gains), weights.to(gains)
        values = _fitted(sets, weights, gains, change)
        residual = (weights @ (gains - sets @ values) ** 2).sqrt()
        sizes = torch.bincount(players.flatten()).to(values)
        maps = (values / sizes[:, None]).T[:, players.to(values.device)].to(whole)
        return maps, {"gap": values.sum(dim=0).sub(change).to(whole), "residual": residual.to(whole)}

    def players(self, runner: Runner) -> Int[Tensor, "*grid"]:
        """The player of each position."""
        grid = tuple(runner.vectors(runner.values).shape[1:-1])
        cells = None if runner.geometry.kind == "sequence" else self.cells
        found = torch.zeros(grid, dtype=torch.long)
        for axis, size in enumerate(grid):
            sides = size if cells is None else min(cells, size)
            place = torch.arange(size) * sides // size
            found = found * sides + place.view(-1, *[1] * (len(grid) - axis - 1))
        return found

    def sets(self, players: int) -> tuple[Bool[Tensor, "n players"], Float[Tensor, " n"]]:
        """Sets of players, neither empty nor whole, and the kernel's weight of each; all weights together are 1.

        Raises:
            ValueError: If there are too few samples for so many players.
        """
        sizes = torch.arange(1, players, dtype=torch.float64)
        # The kernel's weight of all sets of a size together.
        kernel = 1 / (sizes * (players - sizes))
        if 2**players - 2 <= self.samples:
            every = torch.tensor(list(itertools.product([False, True], repeat=players)))[1:-1]
            chosen = every.sum(dim=1)
            ways = torch.tensor([math.comb(players, int(size)) for size in sizes], dtype=torch.float64)
            return every, (kernel / ways / kernel.sum())[chosen - 1]
        if self.samples < 2 * players:
            raise ValueError(
                f"samples is {self.samples} for {players} players, but each takes at least two: give "
                f"samples={2 * players} or more, or fewer cells."
            )
        draw = torch.Generator().manual_seed(int(counter_key(self.seed, _COALITIONS, 0, 0)) >> 1)
        pairs = self.samples // 2
        drawn = 1 + torch.multinomial(kernel, pairs, replacement=True, generator=draw)
        order = torch.rand(pairs, players, generator=draw, dtype=torch.float64).argsort(dim=1).argsort(dim=1)
        half = order < drawn[:, None]
        return torch.cat([half, ~half]), torch.full((2 * pairs,), 1 / (2 * pairs), dtype=torch.float64)

    def _shown(self, runner: Runner, chosen: Bool[Tensor, " players"], players: Int[Tensor, "*grid"]) -> Tensor:
        values = runner.values.clone()
        runner.vectors(values)[:, ~chosen[players].to(values.device)] = self.baseline
        return values


def _fitted(
    sets: Float[Tensor, "n players"],
    weights: Float[Tensor, " n"],
    gains: Float[Tensor, "n b"],
    change: Float[Tensor, " b"],
) -> Float[Tensor, "players b"]:
    """Weighted least squares under the constraint that values add up to the change of the score."""
    if not len(sets):
        return change[None]
    weighted = sets.T * weights
    inverse = torch.linalg.pinv(weighted @ sets, hermitian=True)
    free, ones = inverse @ (weighted @ gains), inverse.sum(dim=1)
    return free - ones[:, None] * (free.sum(dim=0) - change) / ones.sum()
