from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from analyses.attributing import attribute
from analyses.attribution.attribution_patching import AttributionPatching
from analyses.passes import Examples, Scorer
from analyses.scores.base import Pass
from analyses.scores.next_token_loss import NextTokenLoss
from interp.models.torch_module import TorchModel
from interp.types import Inputs

LENGTHS = (5, 2, 4, 3)


class Words(nn.Module):
    """Each position reads those up to it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 20)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        before = self.embed(input_ids).cumsum(1) / torch.arange(1, input_ids.shape[1] + 1)[:, None]
        return self.head(self.mix(before).tanh())


def _words() -> tuple[TorchModel, Inputs]:
    torch.manual_seed(0)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(1))
    return TorchModel(Words().double()), Inputs({"input_ids": ids, "attention_mask": mask}, mask)


def _by_hand(model: TorchModel, inputs: Inputs) -> torch.Tensor:
    found = []
    for ids, length in zip(inputs.tensors["input_ids"], LENGTHS, strict=True):
        own = ids[None, :length]
        logits = model.module(own, torch.ones_like(own))
        found.append(functional.cross_entropy(logits[0, :-1], own[0, 1:]))
    return torch.stack(found)


def _scores(model: Any, inputs: Inputs) -> torch.Tensor:
    return Scorer(model, NextTokenLoss()).run(Examples.all(inputs), grads=False).scores


def test_equals_the_cross_entropy_of_each_text_alone() -> None:
    model, inputs = _words()
    torch.testing.assert_close(_scores(model, inputs), _by_hand(model, inputs).detach(), rtol=1e-12, atol=1e-12)


def test_padding_may_stand_on_the_left() -> None:
    logits = torch.randn(1, 5, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([[0, 0, 7, 3, 4]])
    mask = torch.tensor([[False, False, True, True, True]])
    run = Pass(TorchModel(nn.Identity()), Inputs({"input_ids": ids}, mask), logits)
    expected = functional.cross_entropy(logits[0, 2:4], ids[0, 3:])
    torch.testing.assert_close(NextTokenLoss()(run)[0], expected)


def test_a_models_own_token_losses_are_read() -> None:
    class Own(TorchModel):
        def token_losses(self, output: torch.Tensor, inputs: Inputs) -> torch.Tensor:
            return 2 * torch.ones(4, 4, dtype=torch.float64) * inputs.mask[:, 1:]

    model, inputs = _words()
    assert _scores(Own(model.module), inputs).tolist() == [2, 2, 2, 2]


def test_training_lessens_the_loss_itself() -> None:
    model, inputs = _words()
    slopes = Scorer(model, NextTokenLoss()).weight_gradients(Examples.all(inputs))
    expected = torch.autograd.grad(_by_hand(model, inputs).sum(), list(slopes))
    assert len(slopes) == len(list(model.module.parameters()))
    for slope, other in zip(slopes.values(), expected, strict=True):
        torch.testing.assert_close(slope, other)


def test_a_batch_equals_one_by_one_and_the_last_token_has_no_part() -> None:
    model, inputs = _words()
    found = [
        attribute(model, inputs, "embed", score=NextTokenLoss(), methods=["input-x-gradient", "HiResCAM"], batch_size=n)
        for n in (1, 3, 32)
    ]
    for maps in found:
        torch.testing.assert_close(maps.scores, _by_hand(model, inputs).detach(), rtol=1e-12, atol=1e-12)
        for key, values in maps.values.items():
            torch.testing.assert_close(values, found[0].values[key], rtol=1e-12, atol=1e-12)
    # A token is predicted, but not from itself: only what is read has a gradient, all of it does.
    read = torch.arange(5) < torch.tensor(LENGTHS)[:, None] - 1
    assert bool((found[0]["embed", "HiResCAM"] != 0).eq(read).all())


def test_parts_of_a_loss_are_in_its_units() -> None:
    """They add up to the loss less that without any token, which is that of the bias alone."""
    model, inputs = _words()
    maps = attribute(model, inputs, "embed", score=NextTokenLoss(), methods=[AttributionPatching()])
    ((values, about),) = zip(maps.values.values(), maps.details.values(), strict=True)
    blank = model.module.head(model.module.mix(torch.zeros(6).double()).tanh()).detach()
    ids = inputs.tensors["input_ids"]
    without = [functional.cross_entropy(blank.expand(n - 1, 20), ids[i, 1:n]) for i, n in enumerate(LENGTHS)]
    torch.testing.assert_close(values.sum(1) - about["gap"], maps.scores - torch.stack(without))


def test_what_predicts_nothing_is_refused() -> None:
    model, inputs = _words()
    short = torch.arange(5) < torch.tensor([5, 1, 4, 3])[:, None]
    with pytest.raises(ValueError, match="1 of 4 examples have fewer than two tokens, of which none is predicted"):
        _scores(model, Inputs(inputs.tensors | {"attention_mask": short}, short))
    run = Pass(TorchModel(nn.Identity()), Inputs({"x": torch.zeros(2, 3)}), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"Identity gives logits of shape \[2, 3\] for input_ids of shape None"):
        NextTokenLoss()(run)
