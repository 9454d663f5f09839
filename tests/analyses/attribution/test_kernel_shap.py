import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from analyses.attribution.kernel_shap import KernelSHAP


def _shapley(runner: Any, players: torch.Tensor, baseline: float) -> torch.Tensor:
    """Every set of players, and what each player adds to it, as Shapley has it."""
    count = int(players.max()) + 1

    def score(chosen: tuple[int, ...]) -> torch.Tensor:
        values = torch.full_like(runner.values, baseline)
        for player in chosen:
            runner.vectors(values)[:, players == player] = runner.vectors(runner.values)[:, players == player]
        return runner.scores(values)

    sets = [chosen for size in range(count + 1) for chosen in itertools.combinations(range(count), size)]
    scores = {chosen: score(chosen) for chosen in sets}
    values = torch.zeros(len(runner.inputs), count, dtype=torch.float64)
    for player in range(count):
        for chosen in sets:
            if player not in chosen:
                ways = math.factorial(len(chosen)) * math.factorial(count - len(chosen) - 1) / math.factorial(count)
                values[:, player] += ways * (scores[tuple(sorted((*chosen, player)))] - scores[chosen])
    return values


def test_equals_shapley_values_of_cells(pictures: Any) -> None:
    runner = pictures(slice(0, 3))
    method = KernelSHAP(cells=2, baseline=0.3)
    maps, details = method.measured(runner)
    players = method.players(runner)
    assert torch.equal(players, torch.tensor([[0] * 4 + [1] * 3] * 3 + [[2] * 4 + [3] * 3] * 3))
    expected = _shapley(runner, players, 0.3)
    sums = torch.stack([maps[:, players == player].sum(1) for player in range(4)], 1)
    torch.testing.assert_close(sums, expected)
    assert all(maps[0][players == player].unique().numel() == 1 for player in range(4))
    assert float(details["gap"].abs().max()) < 1e-12 and float(details["residual"].min()) > 1e-4


def test_equals_shapley_values_of_tokens(texts: Any) -> None:
    runner = texts()
    maps, _ = KernelSHAP().measured(runner)
    torch.testing.assert_close(maps, _shapley(runner, torch.arange(5), 0.0))


def test_of_players_that_only_add_up_few_sets_are_enough(pictures: Any) -> None:
    runner = pictures(score=lambda output: output[:, 0])
    weights = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    runner.scorer.model.module.forward = lambda x: (x * weights).sum((1, 2, 3))[:, None] + 5
    maps, details = KernelSHAP(samples=100, cells=None, baseline=0.5).measured(runner)
    torch.testing.assert_close(maps, ((runner.inputs.tensors["x"] - 0.5) * weights).sum(1))
    assert float(details["residual"].max()) < 1e-10


def test_random_sets_come_near_and_always_add_up(pictures: Any) -> None:
    runner = pictures(slice(0, 2))
    method = KernelSHAP(cells=3, samples=600)  # all sets
    exact = method.measured(runner)[0]
    change = runner.scores() - runner.scores(torch.zeros_like(runner.values))
    errors = []
    for samples in (40, 400):
        maps, details = KernelSHAP(cells=3, samples=samples).measured(runner)
        torch.testing.assert_close(maps.sum((1, 2)), change)
        assert float(details["gap"].abs().max()) < 1e-12
        errors.append(float((maps - exact).norm() / exact.norm()))
    assert errors[1] < errors[0] < 0.3 and errors[1] < 0.1


def test_drawn_sets_follow_the_kernel() -> None:
    sets, weights = KernelSHAP(samples=20_000).sets(16)
    sizes = torch.arange(1, 16, dtype=torch.float64)
    expected = 1 / (sizes * (16 - sizes))
    found = torch.bincount(sets.sum(1), minlength=17)[1:16] / len(sets)
    torch.testing.assert_close(found.double(), expected / expected.sum(), atol=0.01, rtol=0.0)
    assert torch.equal(sets[:10_000], ~sets[10_000:])
    torch.testing.assert_close(sets.double().mean(0), torch.full((16,), 0.5, dtype=torch.float64))
    exact, kernel = KernelSHAP(samples=100).sets(5)
    assert len(exact) == 30
    for chosen, weight in zip(exact, kernel, strict=True):
        size = int(chosen.sum())
        expected_one = 4 / (math.comb(5, size) * size * (5 - size))
        assert float(weight / kernel[0]) == pytest.approx(expected_one / (4 / (5 * 4)))
    torch.testing.assert_close(weights.sum(), kernel.sum())


def test_one_player_has_all_and_no_random_state_moves(pictures: Any) -> None:
    torch.manual_seed(11)
    state, theirs = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    runner = pictures()
    torch.set_rng_state(state)
    maps, details = KernelSHAP(cells=1).measured(runner)
    KernelSHAP(cells=6, samples=80).measured(runner)
    change = runner.scores() - runner.scores(torch.zeros_like(runner.values))
    torch.testing.assert_close(maps, (change / 42).view(-1, 1, 1).expand(-1, 6, 7))
    assert torch.equal(details["residual"], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == theirs).all()  # type: ignore[index]


def test_wrong_options_are_refused(pictures: Any) -> None:
    with pytest.raises(ValueError, match="KernelSHAP has 1 samples and 7 cells"):
        KernelSHAP(samples=1)
    with pytest.raises(ValueError, match=r"samples is 50 for 42 players, but each takes at least two: give samples=84"):
        KernelSHAP(samples=50).measured(pictures())
