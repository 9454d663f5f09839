"""Completeness: what integrated gradients say of themselves, and exact for a linear score."""

from typing import Any

import torch

from analyses.attributing import attribute
from analyses.attribution.integrated_gradients import IntegratedGradients
from analyses.faithfulness.completeness import Completeness
from interp.types import Site


def test_equals_the_gap_of_integrated_gradients_and_falls_with_the_steps(case: Any) -> None:
    def by(steps: int) -> Any:
        return lambda model, inputs, score: attribute(
            model, inputs, "input", score=score, methods=[IntegratedGradients(steps)]
        )["input"]

    coarse, fine = (Completeness()(case(attributor=by(steps))) for steps in (2, 40))
    given = case()
    gaps = attribute(given.model, given.inputs, "input", score=given.score, methods=[IntegratedGradients(2)])
    (details,) = gaps.details.values()
    torch.testing.assert_close(coarse, details["gap"].abs(), rtol=1e-9, atol=1e-12)
    assert float(fine.mean()) < 0.1 * float(coarse.mean())


def test_is_exact_at_a_baseline_for_a_score_that_is_linear_there(case: Any) -> None:
    """The head reads means of the second layer, so the gradient times the activation is all of the score but biases."""

    def maps(model: Any, inputs: Any, score: Any) -> torch.Tensor:
        return attribute(model, inputs, "second", score=score, methods=["HiResCAM"])["second"]

    given = case(attributor=maps, site=Site("second"))
    # The layer's own output goes through a ReLU: only where it is positive is the score linear.
    given.model.module.second.bias.data.fill_(20.0)
    assert float(Completeness()(given).max()) < 1e-12
    assert float(Completeness(1.0)(given).min()) > 1e-3
