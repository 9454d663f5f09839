"""What every judge keeps, found by discovery."""

import inspect
from typing import Any

import pytest
import torch

from analyses.faithfulness.base import Judge
from analyses.judging import known_judges

JUDGES = list(known_judges().values())


def _close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_all_are_found_and_need_no_argument() -> None:
    names = {kind.__name__ for kind in JUDGES}
    assert names == {
        "ClassSensitivity",
        "Completeness",
        "Deletion",
        "EnergyPointingGame",
        "Infidelity",
        "Insertion",
        "LocalisationIoU",
        "ParameterRandomisation",
        "PointingGame",
        "Sensitivity",
    }
    assert all(isinstance(kind(), Judge) and kind.better in ("higher", "lower") for kind in JUDGES)


@pytest.mark.parametrize("kind", JUDGES)
def test_a_batch_equals_one_by_one(kind: type[Judge], case: Any) -> None:
    whole = kind()(case())
    assert whole.shape == (4,) and bool(whole.isfinite().all())
    for size in (1, 3):
        _close(kind()(case(batch_size=size)), whole)
    for i in range(4):
        _close(kind()(case(slice(i, i + 1)))[0], whole[i])


@pytest.mark.parametrize("kind", [kind for kind in JUDGES if kind.needs != "truth" and kind.__name__ != "Sensitivity"])
def test_padding_changes_nothing(kind: type[Judge], text_case: Any) -> None:
    whole = kind()(text_case())
    for i in range(4):
        _close(kind()(text_case(slice(i, i + 1)))[0], whole[i])


@pytest.mark.parametrize("kind", JUDGES)
def test_the_model_is_left_as_found(kind: type[Judge], case: Any) -> None:
    given = case()
    module, x = given.model.module, given.inputs.tensors["x"]
    module.train()
    before = x.clone(), given.model.fingerprint, [p.data_ptr() for p in module.parameters()]
    kind()(given)
    assert torch.equal(x, before[0]) and given.model.fingerprint == before[1]
    assert [p.data_ptr() for p in module.parameters()] == before[2]
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("kind", JUDGES)
def test_zero_maps_have_a_finite_answer(kind: type[Judge], case: Any) -> None:
    given = case(attributor=lambda model, inputs, score: torch.zeros(len(inputs), 6, 7, dtype=torch.float64))
    assert bool(kind()(given).isfinite().all())


@pytest.mark.parametrize("kind", JUDGES)
def test_a_wrong_number_of_maps_is_refused(kind: type[Judge], case: Any) -> None:
    with pytest.raises(ValueError, match=r"the attributor gave \[3, 6, 7\] for 4 examples"):
        kind()(case(attributor=lambda model, inputs, score: torch.zeros(3, 6, 7)))
    with pytest.raises(ValueError, match="not finite"):
        kind()(case(attributor=lambda model, inputs, score: torch.full((4, 6, 7), torch.nan)))


@pytest.mark.parametrize("kind", JUDGES)
def test_paper_is_named(kind: type[Judge]) -> None:
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    assert "https://" in first and any(year in first for year in map(str, range(2010, 2030)))
