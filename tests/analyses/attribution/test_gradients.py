"""Gradient, input times gradient and SmoothGrad: against autograd by hand."""

from typing import Any

import pytest
import torch

from analyses.attribution.base import over_channels
from analyses.attribution.gradient import Gradient
from analyses.attribution.input_x_gradient import InputXGradient
from analyses.attribution.smooth_grad import SmoothGrad, noise_like


def _by_hand(runner: Any, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(runner.scorer.model.module(leaf)[:, 1].sum(), leaf)[0]


@pytest.mark.parametrize("reduce", ["sum", "norm", "max"])
def test_gradient(pictures: Any, reduce: Any) -> None:
    runner = pictures()
    grads = _by_hand(runner, runner.inputs.tensors["x"])
    torch.testing.assert_close(Gradient().attributions(runner), grads)
    expected = {"sum": grads.sum(1), "norm": grads.square().sum(1).sqrt(), "max": grads.abs().amax(1)}
    torch.testing.assert_close(Gradient(reduce=reduce).measured(runner)[0], expected[reduce])


def test_input_x_gradient(pictures: Any) -> None:
    runner = pictures()
    x = runner.inputs.tensors["x"]
    torch.testing.assert_close(InputXGradient().measured(runner)[0], (x * _by_hand(runner, x)).sum(1))


def test_input_x_gradient_of_a_linear_score_adds_up_to_it(pictures: Any) -> None:
    weights = torch.randn(2, 6, 7, dtype=torch.float64)
    runner = pictures()
    runner.scorer.model.module.forward = lambda x: (x * weights).sum((1, 2, 3))[:, None].expand(-1, 2)
    maps, _ = InputXGradient().measured(runner)
    torch.testing.assert_close(maps.sum((1, 2)), runner.scores())


def test_smooth_grad_is_the_mean_over_its_noise(pictures: Any) -> None:
    runner = pictures()
    x = runner.inputs.tensors["x"]
    size = 0.3 * (x.flatten(1).amax(1) - x.flatten(1).amin(1))[:, None, None, None]
    grads = [_by_hand(runner, x + size * noise_like(x, 7, sample)) for sample in range(4)]
    found = SmoothGrad(samples=4, noise=0.3, seed=7).attributions(runner)
    torch.testing.assert_close(found, torch.stack(grads).mean(0))
    assert not torch.allclose(found, SmoothGrad(samples=4, noise=0.3, seed=8).attributions(runner))
    torch.testing.assert_close(SmoothGrad(samples=2, noise=0.0).attributions(runner), _by_hand(runner, x))


def test_noise_is_gaussian_and_its_own_for_each_sample() -> None:
    noise = torch.stack([noise_like(torch.zeros(1, 100), 0, sample) for sample in range(200)])
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert float(torch.corrcoef(noise[:2])[0, 1].abs()) < 0.3


def test_wrong_options_are_refused(pictures: Any) -> None:
    with pytest.raises(ValueError, match="SmoothGrad has 0 samples and noise 0.1"):
        SmoothGrad(samples=0, noise=0.1)
    with pytest.raises(ValueError, match="SmoothGrad has 5 samples and noise -1.0"):
        SmoothGrad(samples=5, noise=-1.0)
    unchecked: Any = over_channels.__wrapped__ if hasattr(over_channels, "__wrapped__") else over_channels
    with pytest.raises((ValueError, TypeError), match="reduce"):
        unchecked(torch.zeros(1, 2, 3), "mean")
