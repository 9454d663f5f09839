"""Randomisation of weights, against doing it by hand."""

from typing import Any

import pytest
import torch

from analyses.faithfulness.parameter_randomisation import ParameterRandomisation
from analyses.faithfulness.ranking import rank_correlation


def test_a_map_of_the_picture_alone_fails_and_one_of_weights_does_not(case: Any) -> None:
    edges = case(attributor=lambda model, inputs, score: inputs.tensors["x"].abs().sum(1))
    assert ParameterRandomisation()(edges).tolist() == pytest.approx([1] * 4)
    learned = ParameterRandomisation(draws=40)(case())
    assert bool((learned < 0.5).all())


def test_a_map_that_turns_into_its_negative_fails(case: Any) -> None:
    signs = iter([1, 1, -1, -1])
    flips = case(attributor=lambda model, inputs, score: next(signs) * inputs.tensors["x"].sum(1))
    assert ParameterRandomisation()(flips).tolist() == pytest.approx([1] * 4)


def test_weights_keep_their_mean_and_deviation_and_differ_by_draw_and_number() -> None:
    judge, weight = ParameterRandomisation(), torch.nn.Parameter(3 + 2 * torch.randn(200, 300))
    drawn = judge._drawn(weight, 0, 0)
    assert abs(float(drawn.mean()) - 3) < 0.05 and abs(float(drawn.std()) - 2) < 0.05
    assert abs(float(torch.corrcoef(torch.stack([drawn.flatten(), weight.data.flatten()]))[0, 1])) < 0.02
    assert torch.equal(drawn, judge._drawn(weight, 0, 0))
    assert not torch.equal(drawn, judge._drawn(weight, 1, 0)) and not torch.equal(drawn, judge._drawn(weight, 0, 1))
    assert torch.equal(judge._drawn(torch.nn.Parameter(torch.ones(5)), 0, 0), torch.ones(5))


def test_stages_begin_with_the_last_module_and_equal_doing_it_by_hand(case: Any) -> None:
    judge, given = ParameterRandomisation(stages=3, draws=1), case()
    module = given.model.module
    weights = list(module.parameters())
    assert [[i for i, _ in stage] for stage in judge._stages(module)] == [[5, 4], [5, 4, 3, 2], [5, 4, 3, 2, 1, 0]]
    found, expected = judge(given), torch.zeros(4, dtype=torch.float64)
    kept = torch.ones(4, 6, 7, dtype=torch.bool)
    before = [weight.data.clone() for weight in weights]
    for first in (4, 2, 0):
        for i in range(first, 6):
            weights[i].data.copy_(judge._drawn(torch.nn.Parameter(before[i]), 0, i))
        maps = given.again(given.inputs)
        for weight, value in zip(weights, before, strict=True):
            weight.data.copy_(value)
        expected += rank_correlation(given.maps, maps, kept).abs() / 3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_weights_come_back_when_the_attributor_fails(case: Any) -> None:
    calls = []

    def second_fails(model: Any, inputs: Any, score: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("as planned")
        return torch.rand(4, 6, 7)

    given = case(attributor=second_fails)
    before = given.model.fingerprint
    with pytest.raises(RuntimeError, match="as planned"):
        ParameterRandomisation()(given)
    assert given.model.fingerprint == before


def test_what_cannot_be_drawn_is_refused(case: Any) -> None:
    with pytest.raises(ValueError, match="stages is 0 and draws 3"):
        ParameterRandomisation(stages=0)
    given = case()
    module, given.model.module = given.model.module, torch.nn.ReLU()
    with pytest.raises(ValueError, match="the model has no weights"):
        ParameterRandomisation()(case(model=given.model, attributor=lambda *_: torch.rand(4, 6, 7)))
    given.model.module = module
