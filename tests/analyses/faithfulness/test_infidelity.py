"""Infidelity: 0 for maps that tell each fall, against a loop, and the best factor against a search."""

from typing import Any

import pytest
import torch

from analyses.faithfulness.hiding import covered, random_cells
from analyses.faithfulness.infidelity import Infidelity, infidelity


def test_is_0_for_a_score_that_is_the_sum_of_positions(case: Any) -> None:
    weights = torch.rand(6, 7, dtype=torch.float64)
    given = case()
    given.model.module.forward = lambda x: (x.sum(1) * weights).sum((1, 2))[:, None] + 3
    given = case(
        model=given.model,
        score=lambda output: output[:, 0],
        attributor=lambda model, inputs, score: inputs.tensors["x"].sum(1) * weights,
    )
    assert float(Infidelity(baseline="zero", scaled=False)(given).max()) < 1e-20
    assert float(Infidelity(baseline="zero")(given).max()) < 1e-20
    noise = case(model=given.model, score=given.score, attributor=lambda *_: torch.rand(4, 6, 7).double() - 0.5)
    assert float(Infidelity(baseline="zero")(noise).min()) > 0.1


def test_equals_a_loop_over_sets(case: Any) -> None:
    given, judge = case(), Infidelity(samples=6, cells=3, share=0.4, scaled=False)
    found, expected = judge(given), torch.zeros(4, dtype=torch.float64)
    for number in range(6):
        chosen = random_cells(number, (6, 7), 3, 0.4, 0)
        for i, x in enumerate(given.inputs.tensors["x"]):
            hidden = torch.where(chosen.view(6, 7), x.mean((1, 2), keepdim=True), x)
            with torch.no_grad():
                scores = given.model.module(torch.stack([x, hidden]))[:, int(given.score.index[i])]
            told = given.maps[i].flatten()[chosen].sum()
            expected[i] += (told - (scores[0] - scores[1])) ** 2 / 6
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_factor_is_the_best_and_the_result_a_share() -> None:
    told, falls = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = infidelity(told, falls, scaled=True)
    factors = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    tried = torch.stack([infidelity(factor * told, falls, scaled=False) for factor in factors])
    torch.testing.assert_close(found, tried.amin(0) / falls.square().mean(1), rtol=1e-5, atol=0)
    assert bool(((found >= 0) & (found <= 1)).all())
    torch.testing.assert_close(infidelity(5 * told, falls, scaled=True), found)
    assert infidelity(told, 0 * falls, scaled=True).tolist() == [0, 0, 0]


def test_positions_are_hidden_by_the_same_machinery(case: Any) -> None:
    ((runner, _),) = case().runs()
    chosen = random_cells(0, (6, 7), 3, 0.4, 0)
    (values,) = covered(runner, iter([chosen.expand(4, -1)]), "zero")
    assert torch.equal(values == 0, chosen.view(6, 7).expand_as(values))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Infidelity has 1 samples"):
        Infidelity(samples=1)
