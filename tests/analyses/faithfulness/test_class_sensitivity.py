"""Class sensitivity: 1 for what does not look at the class."""

from typing import Any

import pytest
import torch

from analyses.attributing import attribute
from analyses.faithfulness.class_sensitivity import ClassSensitivity
from analyses.faithfulness.ranking import rank_correlation


def _by(method: str) -> Any:
    return lambda model, inputs, score: attribute(model, inputs, "second", score=score, methods=[method])["second"]


def test_eigen_cam_is_insensitive_and_grad_cam_equals_two_maps_by_hand(case: Any) -> None:
    assert ClassSensitivity()(case(attributor=_by("EigenCAM"))).tolist() == pytest.approx([1] * 4)
    given = case(attributor=_by("GradCAM"))
    maps = [given.again(given.inputs, score) for score in (given.score, given.other)]
    expected = rank_correlation(*maps, torch.ones(4, 3, 4, dtype=torch.bool))
    found = ClassSensitivity()(given)
    assert torch.equal(found, expected) and bool((found < 0.99).any())


def test_another_score_is_needed(case: Any) -> None:
    with pytest.raises(ValueError, match="other is None"):
        ClassSensitivity()(case(other=None))
