import copy
from typing import Any

import pytest
import torch

from analyses.attribution.gradient import Gradient
from analyses.attribution.meta_saliency import MetaSaliency
from analyses.cam.hires_cam import HiResCAM
from analyses.cam.norm_grad import NormGrad
from analyses.scores.class_logit import ClassLogit

INNER = [NormGrad(), HiResCAM(), Gradient()]


def _inner(method: Any, runner: Any) -> torch.Tensor:
    if isinstance(method, Gradient):
        return method.measured(runner)[0]
    return method(runner.vectors(runner.values), runner.vectors(runner.gradients()[1]))


@pytest.mark.parametrize("method", INNER)
def test_without_a_step_it_is_the_inner_map(pictures: Any, method: Any) -> None:
    runner = pictures(site="second")
    torch.testing.assert_close(MetaSaliency(method, eta=0.0).measured(runner)[0], _inner(method, runner))


@pytest.mark.parametrize("method", INNER)
@pytest.mark.parametrize("ascend", [False, True])
def test_equals_a_step_of_sgd_on_a_copy_for_each_example(pictures: Any, method: Any, ascend: bool) -> None:
    runner = pictures(site="second")
    maps, _ = MetaSaliency(method, eta=0.5, ascend=ascend).measured(runner)
    plain = runner.scorer.model.module
    for i in range(4):
        alone = runner.some(torch.tensor([i]))
        alone.scorer.model.module, x = copy.deepcopy(plain), alone.inputs.tensors["x"]
        twin = alone.scorer.model.module
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.5, maximize=ascend)
        torch.nn.functional.cross_entropy(twin(x), torch.tensor([1])).backward()
        optimizer.step()
        optimizer.zero_grad()
        expected = _by_hand(method, twin, x)
        torch.testing.assert_close(maps[i], expected)
        alone.scorer.model.module = plain
    assert (maps - _inner(method, runner)).abs().max() > 1e-4


def _by_hand(method: Any, net: Any, x: torch.Tensor) -> torch.Tensor:
    acts = net.second(net.first(x).tanh()).detach().requires_grad_()
    (grads,) = torch.autograd.grad(net.head(acts.relu().mean((2, 3)))[:, 1].sum(), acts)
    if isinstance(method, Gradient):
        return grads[0].norm(dim=0)
    return method(acts.detach().movedim(1, -1), grads.movedim(1, -1))[0]


def test_without_classes_a_step_raises_the_score(pictures: Any) -> None:
    runner = pictures(score=lambda output: output[:, 0] * 2)
    scorer = runner.scorer
    slopes = scorer.weight_gradients(runner.examples)
    loss = -2 * scorer.model.module(runner.inputs.tensors["x"])[:, 0].sum()
    expected = torch.autograd.grad(loss, list(slopes))
    for slope, other in zip(slopes.values(), expected, strict=True):
        torch.testing.assert_close(slope, other)


@pytest.mark.parametrize("breaks", [False, True])
def test_weights_come_back_to_the_bit_and_frozen_ones_stay_frozen(pictures: Any, breaks: bool) -> None:
    class Broken(HiResCAM):
        def __call__(self, acts: torch.Tensor, grads: torch.Tensor | None = None) -> torch.Tensor:
            raise RuntimeError("in the middle")

    runner = pictures(site="second")
    weights = list(runner.scorer.model.module.parameters())
    weights[0].requires_grad_(False)
    before = [(weight.clone(), weight.data_ptr(), weight.requires_grad) for weight in weights]
    method = MetaSaliency(Broken() if breaks else HiResCAM(), eta=1.0)
    if breaks:
        with pytest.raises(RuntimeError, match="in the middle"):
            method.measured(runner)
    else:
        method.measured(runner)
    for weight, (value, place, asks) in zip(weights, before, strict=True):
        assert torch.equal(weight, value) and weight.data_ptr() == place and weight.requires_grad == asks
        assert weight.grad is None


def test_a_score_of_no_weight_is_refused(pictures: Any) -> None:
    runner = pictures(score=lambda output: torch.ones(len(output), dtype=torch.float64))
    with pytest.raises(ValueError, match="the score depends on no weight of Convolutions"):
        runner.scorer.weight_gradients(runner.examples)


def test_the_loss_of_a_class_is_its_cross_entropy(pictures: Any) -> None:
    runner = pictures(score=ClassLogit([0, 1, 2, 0]))
    logits = runner.scorer.model.module(runner.inputs.tensors["x"])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0]), reduction="sum")
    slopes = runner.scorer.weight_gradients(runner.examples)
    for slope, other in zip(slopes.values(), torch.autograd.grad(expected, list(slopes)), strict=True):
        torch.testing.assert_close(slope, other)
