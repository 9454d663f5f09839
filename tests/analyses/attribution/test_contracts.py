"""What every method that runs the model keeps, found by discovery."""

import inspect
from typing import Any

import pytest
import torch

from analyses.attribution.base import ModelMethod
from analyses.methods import methods
from analyses.running import Runner
from interp.types import Site

SMALL: dict[str, dict[str, Any]] = {
    "SmoothGrad": {"samples": 5},
    "IntegratedGradients": {"steps": 6},
    "RISE": {"masks": 12, "cells": 3},
    "Occlusion": {"window": 2, "stride": 1},
    "KernelSHAP": {"samples": 18, "cells": 3},
}
# What those that are made of attention patterns are given instead, which the two plain models have not.
ATTENDING = {"pictures": "patches", "texts": "words"}
# Of what a method for some layers alone is asked, in place of the input; of the same positions.
SITES: dict[str, dict[str, str]] = {"NormGradConv": {"pictures": "first", "texts": "mix"}}
# What a method runs through, where that does not come with the package.
LIBRARIES = {"DeepLIFT": "captum"}


METHODS = [kind for kind in methods().values() if issubclass(kind, ModelMethod)]


@pytest.fixture(autouse=True)
def _installed(request: Any, needs: Any) -> None:
    kind = getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind")
    if kind is not None and kind.__name__ in LIBRARIES:
        needs(LIBRARIES[kind.__name__])


def _small(kind: type[ModelMethod]) -> ModelMethod:
    return kind(**SMALL.get(kind.__name__, {}))


def _at(kind: type[ModelMethod], runner: Runner, where: str) -> Runner:
    site = SITES.get(kind.__name__, {}).get(where)
    return Runner(runner.scorer, runner.examples, Site(site), batch_size=runner.batch_size) if site else runner


def _given(kind: type[ModelMethod], where: str, request: Any) -> Any:
    return request.getfixturevalue(ATTENDING[where] if kind.attends else where)


def test_all_are_found_and_need_no_argument() -> None:
    assert {"Gradient", "IntegratedGradients", "Occlusion", "RISE", "ScoreCAM"} <= {kind.__name__ for kind in METHODS}
    assert all(isinstance(kind(), ModelMethod) for kind in METHODS)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("where", ["pictures", "texts"])
def test_a_batch_equals_one_by_one_and_no_chunk_is_seen(kind: type[ModelMethod], where: str, request: Any) -> None:
    runner = _given(kind, where, request)
    if kind.__name__ == "ScoreCAM" and where == "texts":
        with pytest.raises(ValueError, match="is given no pixels, on which a mask could lie: choose a method"):
            kind().measured(runner())
        return
    maps, details = _small(kind).measured(_at(kind, runner(), where))
    assert maps.shape == ((4, 5) if where == "texts" else (4, 3, 4) if kind.attends else (4, 6, 7))
    for size in (1, 3, 7):
        other, others = _small(kind).measured(_at(kind, runner(batch_size=size), where))
        torch.testing.assert_close(other, maps, rtol=1e-12, atol=1e-12)
        assert others.keys() == details.keys()
    for i in range(4):
        alone, about = _small(kind).measured(_at(kind, runner(slice(i, i + 1)), where))
        torch.testing.assert_close(alone[0], maps[i], rtol=1e-12, atol=1e-12)
        for name, numbers in about.items():
            torch.testing.assert_close(numbers[0], details[name][i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", METHODS)
def test_the_model_and_what_was_given_are_left_as_found(kind: type[ModelMethod], request: Any) -> None:
    runner = _at(kind, _given(kind, "pictures", request)(), "pictures")
    module, x = runner.scorer.model.module, runner.inputs.tensors["x"]
    module.train()
    before = x.clone(), runner.scorer.model.fingerprint
    _small(kind).measured(runner)
    assert torch.equal(x, before[0]) and runner.scorer.model.fingerprint == before[1]
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("kind", METHODS)
def test_a_score_that_nothing_moves_gives_a_constant_map(kind: type[ModelMethod], request: Any) -> None:
    given = _given(kind, "pictures", request)
    runner = _at(kind, given(score=lambda output: 0 * output[:, 0] + 3), "pictures")
    maps, details = _small(kind).measured(runner)
    if kind.__name__ == "ScoreCAM":  # all channels score alike
        torch.testing.assert_close(maps, runner.values.mean(1))
    elif kind.__name__ == "AttentionRollout":  # it asks for no score at all
        torch.testing.assert_close(maps, kind().measured(given())[0], rtol=0, atol=0)
    else:
        assert maps.abs().max() < 1e-12
    if kind.__name__ in ("FullGrad", "AttnLRP"):  # all of the score is after the last layer, or a bias
        assert all(torch.equal(numbers.abs(), torch.full_like(numbers, 3)) for numbers in details.values())
    elif kind.__name__ == "LRP":  # and nothing of it moves with what is below
        assert torch.equal(details["gap"], torch.full_like(details["gap"], -3))
    else:
        assert all(numbers.abs().max() < 1e-12 for numbers in details.values())


@pytest.mark.parametrize("kind", METHODS)
def test_paper_is_named(kind: type[ModelMethod]) -> None:
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    assert "https://" in first and any(year in first for year in map(str, range(2010, 2030)))
