from typing import Any

import pytest
import torch

from analyses.attributing import attribute
from analyses.attribution.activation_patching import ActivationPatching
from analyses.attribution.attribution_patching import AttributionPatching
from analyses.attribution.input_x_gradient import InputXGradient
from analyses.ledger import attribute_latents
from interp.types import Inputs, Site
from saes.topk import TopK

OTHER = torch.randn(4, 2, 6, 7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
BASELINES = {"zeros": None, "vector": torch.tensor([0.3, -0.2], dtype=torch.float64), "inputs": Inputs({"x": OTHER})}


@pytest.mark.parametrize("baseline", BASELINES)
def test_is_the_gradient_times_the_step_to_the_baseline(pictures: Any, baseline: str) -> None:
    runner, given = pictures(), BASELINES[baseline]
    net, x = runner.scorer.model.module, runner.inputs.tensors["x"]
    base = {"zeros": torch.zeros_like(x), "inputs": OTHER}.get(baseline)
    if base is None:
        base = given[:, None, None].expand_as(x)
    maps, details = AttributionPatching(given).measured(runner)
    for b in range(4):
        leaf = x[b : b + 1].clone().requires_grad_()
        (grads,) = torch.autograd.grad(net(leaf)[0, 1], leaf)
        expected = ((x[b] - base[b]) * grads[0]).sum(0)
        torch.testing.assert_close(maps[b], expected)
        change = (net(x[b : b + 1]) - net(base[b : b + 1]))[0, 1].detach()
        torch.testing.assert_close(details["gap"][b], expected.sum() - change)


@pytest.mark.parametrize("baseline", BASELINES)
def test_of_a_linear_score_it_is_patching_itself(pictures: Any, baseline: str) -> None:
    weights = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    runner = pictures(score=lambda output: output[:, 0])
    runner.scorer.model.module.forward = lambda x: (x * weights).sum((1, 2, 3))[:, None]
    maps, details = AttributionPatching(BASELINES[baseline]).measured(runner)
    exact, about = ActivationPatching(BASELINES[baseline]).measured(runner)
    torch.testing.assert_close(maps, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps.sum((1, 2)), about["whole"])
    assert details["gap"].abs().max() < 1e-12


def test_it_is_the_slope_of_patching(pictures: Any) -> None:
    """Near the examples, patching and its first order differ by the square of the step."""
    runner = pictures()
    x, errors = runner.inputs.tensors["x"], []
    for step in (1e-2, 1e-3):
        near = Inputs({"x": x + step * OTHER})
        exact, first = (method(near).measured(runner)[0] for method in (ActivationPatching, AttributionPatching))
        errors.append(float((exact - first).abs().max()))
        assert errors[-1] < step * float(exact.abs().max())
    assert 50 < errors[0] / errors[1] < 200


def test_to_zero_it_is_input_times_gradient(pictures: Any, texts: Any) -> None:
    for runner in (pictures(), pictures(site="second"), texts()):
        torch.testing.assert_close(AttributionPatching().measured(runner)[0], InputXGradient().measured(runner)[0])


def test_a_ledger_counts_the_other_way(pictures: Any) -> None:
    """Of a dictionary's parts together, at each position, and of the change."""
    runner = pictures(site="second")
    torch.manual_seed(0)
    sae = TopK(d_in=5, d_sae=12, k=3).double().eval()
    other = Inputs({"x": OTHER})
    found = attribute_latents(
        runner.scorer.model, runner.inputs, sae, score=runner.scorer.score, baseline=other, site=Site("second")
    )
    effects = sum(found.at(feature) for feature in range(12)) + found.error + found.bias
    maps, details = AttributionPatching(other).measured(runner)
    torch.testing.assert_close(maps.flatten(1), -effects)
    torch.testing.assert_close(details["gap"], found.residual)
    _, about = ActivationPatching(other).measured(runner)
    torch.testing.assert_close(about["whole"], -found.change)


def test_inputs_follow_their_examples_into_chunks(pictures: Any, texts: Any) -> None:
    method = AttributionPatching(Inputs({"x": OTHER}))
    maps, _ = method.measured(pictures())
    for size in (1, 3):
        torch.testing.assert_close(method.measured(pictures(batch_size=size))[0], maps, rtol=1e-12, atol=1e-12)
    runner = texts()
    mask = runner.inputs.mask
    ids = torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(5))
    method = AttributionPatching(Inputs({"input_ids": ids, "attention_mask": mask}, mask))
    found = [
        attribute(
            runner.scorer.model, runner.inputs, "embed", score=runner.scorer.score, methods=[method], batch_size=size
        )
        for size in (1, 32)
    ]
    (one,), (all_at_once,) = (part.values.values() for part in found)
    torch.testing.assert_close(one, all_at_once, rtol=1e-12, atol=1e-12)
    assert bool((one != 0).eq(mask).all())
