import pytest
import torch

from analyses.scores.base import Pass
from analyses.scores.class_logit import ClassLogit
from interp.models.torch_module import TorchModel
from interp.types import Inputs


def _run(logits: torch.Tensor, mask: torch.Tensor | None = None) -> Pass:
    return Pass(TorchModel(torch.nn.Identity()), Inputs({"x": logits}, mask), logits)


LOGITS = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])


def test_one_class_for_all_one_each_or_the_highest() -> None:
    assert ClassLogit(2)(_run(LOGITS)).tolist() == [2, 3]
    assert ClassLogit([0, 2])(_run(LOGITS)).tolist() == [1, 3]
    assert ClassLogit(torch.tensor([1, 1]))(_run(LOGITS)).tolist() == [5, 0]
    assert ClassLogit()(_run(LOGITS)).tolist() == [5, 4]


def test_a_difference_of_two() -> None:
    assert ClassLogit(1, minus=0)(_run(LOGITS)).tolist() == [4, -4]
    assert ClassLogit(minus=[2, 2])(_run(LOGITS)).tolist() == [3, 1]


def test_the_last_token_is_the_last_that_holds_data() -> None:
    logits = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert ClassLogit(0)(_run(logits, mask)).tolist() == [3, 21]
    assert ClassLogit(0, position=-2)(_run(logits, mask)).tolist() == [0, 18]
    assert ClassLogit(1, position=1)(_run(logits, mask)).tolist() == [4, 16]
    assert ClassLogit(0)(_run(logits)).tolist() == [9, 21]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (ClassLogit(3), "index is 3, but there are 3 classes: choose 0..2"),
        (ClassLogit(0, minus=-1), "minus is -1, but there are 3 classes"),
        (ClassLogit([0, 1, 2]), "index has 3 entries, but there are 2 examples: give one class an example"),
    ],
)
def test_classes_that_are_not_there_are_refused(score: ClassLogit, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(_run(LOGITS))


def test_positions_that_are_not_there_are_refused() -> None:
    logits = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    for position in (-3, 2):
        with pytest.raises(ValueError, match=f"position is {position}, but an example has 2 positions"):
            ClassLogit(0, position=position)(_run(logits, mask))


def test_a_model_without_logits_is_refused() -> None:
    run = Pass(TorchModel(torch.nn.Identity()), Inputs({"x": LOGITS}), {"hidden": LOGITS})
    with pytest.raises(ValueError, match="Identity has no logits: its forward returned dict. Choose a score without"):
        ClassLogit(0)(run)
    with pytest.raises(ValueError, match=r"have shape \[2, 3, 1, 1\], but a class is read from \[b, c\]"):
        ClassLogit(0)(_run(LOGITS[..., None, None]))
