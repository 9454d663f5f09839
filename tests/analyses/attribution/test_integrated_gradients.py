from typing import Any

import pytest
import torch

from analyses.attributing import attribute
from analyses.attribution.integrated_gradients import IntegratedGradients
from analyses.embeddings import embedding_of
from analyses.scores.similarity import Similarity
from interp.capturing import capture
from interp.data.glyphs import glyphs
from interp.loading import load_model


def test_of_a_quadratic_score_it_is_exact_with_one_step(pictures: Any) -> None:
    """The gradient of a quadratic form is linear on the way, which one point in the middle integrates exactly."""
    runner = pictures(score=lambda output: output[:, 0])
    form = torch.randn(84, 84, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    form = form + form.T
    runner.scorer.model.module.forward = lambda x: ((x.flatten(1) @ form) * x.flatten(1)).sum(1, keepdim=True)
    x = runner.inputs.tensors["x"].flatten(1)
    found = IntegratedGradients(steps=1).attributions(runner)
    torch.testing.assert_close(found.flatten(1), x * (x @ form))


def test_more_steps_close_the_gap(pictures: Any) -> None:
    runner = pictures()
    gaps = {}
    for steps in (3, 20, 200):
        maps, details = IntegratedGradients(steps=steps).measured(runner)
        change = runner.scores() - runner.scores(torch.zeros_like(runner.values))
        torch.testing.assert_close(maps.sum((1, 2)) - change, details["gap"])
        gaps[steps] = float(details["gap"].abs().mean())
    assert gaps[200] < 0.1 * gaps[20] or gaps[200] < 1e-6
    assert gaps[20] < gaps[3]


def test_a_baseline_is_where_the_way_begins(pictures: Any) -> None:
    runner = pictures()
    maps, details = IntegratedGradients(steps=100, baseline=0.5).measured(runner)
    change = runner.scores() - runner.scores(torch.full_like(runner.values, 0.5))
    torch.testing.assert_close(maps.sum((1, 2)), change + details["gap"])
    assert float(details["gap"].abs().max()) < 1e-2 * float(change.abs().max())  # a ReLU has a kink


def test_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="steps is 0, but an integral needs a point"):
        IntegratedGradients(steps=0)


@pytest.mark.parametrize("name", ["glyph-resnet", "glyph-vit"])
def test_the_gap_of_a_real_model_closes(name: str) -> None:
    model = load_model(name)
    inputs = model.collate([item["image"] for item in glyphs("held_out")[:2]])
    score = Similarity(embedding_of(model, inputs)[0])
    kinds = [IntegratedGradients(steps=steps) for steps in (10, 200)]
    coarse, fine = (details["gap"].abs() for details in _details(model, inputs, "input", score, kinds))
    assert float(fine.mean()) < 0.1 * float(coarse.mean())


def test_before_a_layer_norm_another_baseline_is_needed() -> None:
    model = load_model("glyph-vit")
    inputs = model.collate([item["image"] for item in glyphs("held_out")[:2]])
    score, acts = Similarity(embedding_of(model, inputs)[0]), capture(model, inputs, "embed").vectors("embed")
    middle = acts.mean((0, 1))
    kinds = [IntegratedGradients(200), *(IntegratedGradients(steps, middle) for steps in (10, 100))]
    at_0, coarse, fine = (details["gap"].abs() for details in _details(model, inputs, "embed", score, kinds))
    assert float(fine.mean()) < 0.1 * float(at_0.mean()) and float(fine.mean()) < float(coarse.mean())


def _details(model: Any, inputs: Any, site: str, score: Any, kinds: list[Any]) -> list[dict[str, torch.Tensor]]:
    return [
        dict(next(iter(attribute(model, inputs, site, score=score, methods=[kind]).details.values()))) for kind in kinds
    ]
