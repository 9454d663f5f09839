"""What every method that runs the model keeps, found by discovery."""

import inspect
from typing import Any

import pytest
import torch

from analyses.attribution.base import ModelMethod
from analyses.methods import methods

SMALL: dict[str, dict[str, Any]] = {
    "SmoothGrad": {"samples": 5},
    "IntegratedGradients": {"steps": 6},
    "RISE": {"masks": 12, "cells": 3},
    "Occlusion": {"window": 2, "stride": 1},
}


METHODS = [kind for kind in methods().values() if issubclass(kind, ModelMethod)]


def _small(kind: type[ModelMethod]) -> ModelMethod:
    return kind(**SMALL.get(kind.__name__, {}))


def test_all_are_found_and_need_no_argument() -> None:
    assert {"Gradient", "IntegratedGradients", "Occlusion", "RISE", "ScoreCAM"} <= {kind.__name__ for kind in METHODS}
    assert all(isinstance(kind(), ModelMethod) for kind in METHODS)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("where", ["pictures", "texts"])
def test_a_batch_equals_one_by_one_and_no_chunk_is_seen(kind: type[ModelMethod], where: str, request: Any) -> None:
    runner = request.getfixturevalue(where)
    if kind.__name__ == "ScoreCAM" and where == "texts":
        with pytest.raises(ValueError, match="is given no pixels, on which a mask could lie: choose a method"):
            kind().measured(runner())
        return
    maps, details = _small(kind).measured(runner())
    assert maps.shape == ((4, 6, 7) if where == "pictures" else (4, 5))
    for size in (1, 3, 7):
        other, others = _small(kind).measured(runner(batch_size=size))
        torch.testing.assert_close(other, maps, rtol=1e-12, atol=1e-12)
        assert others.keys() == details.keys()
    for i in range(4):
        alone, about = _small(kind).measured(runner(slice(i, i + 1)))
        torch.testing.assert_close(alone[0], maps[i], rtol=1e-12, atol=1e-12)
        for name, numbers in about.items():
            torch.testing.assert_close(numbers[0], details[name][i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", METHODS)
def test_the_model_and_what_was_given_are_left_as_found(kind: type[ModelMethod], pictures: Any) -> None:
    runner = pictures()
    module, x = runner.scorer.model.module, runner.inputs.tensors["x"]
    module.train()
    before = x.clone(), runner.scorer.model.fingerprint
    _small(kind).measured(runner)
    assert torch.equal(x, before[0]) and runner.scorer.model.fingerprint == before[1]
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("kind", METHODS)
def test_a_score_that_nothing_moves_gives_a_constant_map(kind: type[ModelMethod], pictures: Any) -> None:
    runner = pictures(score=lambda output: 0 * output[:, 0] + 3)
    maps, details = _small(kind).measured(runner)
    if kind.__name__ == "RISE":  # every mask scores alike: what is left is how often a position is shown
        torch.testing.assert_close(maps, maps[:1].expand_as(maps))
    elif kind.__name__ == "ScoreCAM":  # and so do all channels
        torch.testing.assert_close(maps, runner.values.mean(1))
    else:
        assert maps.abs().max() == 0
    if kind.__name__ == "FullGrad":  # all of the score is after the last layer
        assert all(torch.equal(numbers, torch.full_like(numbers, 3)) for numbers in details.values())
    else:
        assert all(numbers.abs().max() < 1e-12 for numbers in details.values())


@pytest.mark.parametrize("kind", METHODS)
def test_paper_is_named(kind: type[ModelMethod]) -> None:
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    assert "https://" in first and any(year in first for year in map(str, range(2010, 2030)))
