import math

import pytest
import torch
from torch import Tensor

from saes.abs_topk import AbsTopK
from saes.base import SAE
from saes.jumprelu import JumpReLU
from saes.penalties.l1 import L1
from saes.penalties.tanh import Tanh
from saes.relu import ReLU


@pytest.fixture
def x() -> Tensor:
    return torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", [ReLU, AbsTopK])
def test_it_is_the_slow_one(method: type[SAE], x: Tensor, randomised, step_of) -> None:
    sae = randomised(method(d_in=6, d_sae=40).double()).train()
    expected, codes = torch.zeros((), dtype=x.dtype), sae.codes(x).dense()
    for row in codes:
        for code, direction in zip(row, sae.W_dec, strict=True):
            expected = expected + 0.5 * torch.tanh(3 * code.abs() * direction.norm()) / len(x)
    found = Tanh(0.5, steepness=3.0)(step_of(sae, x))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(sae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_through_the_jump_it_moves_thresholds_and_all_else(x: Tensor, randomised, step_of) -> None:
    """Entry by entry: d f / d theta = -theta / eps K((z - theta) / eps), K the rectangle, and d f / d z = 1[f > 0]."""
    sae = randomised(JumpReLU(d_in=6, d_sae=40, bandwidth=0.4, threshold=0.6).double()).train()
    grads = {name: torch.zeros_like(parameter) for name, parameter in sae.named_parameters()}
    with torch.no_grad():
        pre_acts, thresholds, norms = (
            (x - sae.b_dec) @ sae.W_enc + sae.b_enc,
            sae.log_threshold.exp(),
            sae.W_dec.norm(dim=1),
        )
        for i in range(len(x)):
            for j in range(40):
                z, theta, norm = float(pre_acts[i, j]), float(thresholds[j]), float(norms[j])
                code = z if z > theta else 0.0
                slope = 4 * (1 - math.tanh(4 * code * norm) ** 2) / len(x)
                if abs(z - theta) < 0.2:
                    grads["log_threshold"][j] -= slope * norm * theta / 0.4 * theta  # d theta / d log theta = theta
                if z > theta:
                    grads["W_enc"][:, j] += slope * norm * (x[i] - sae.b_dec)
                    grads["b_enc"][j] += slope * norm
                    grads["b_dec"] -= slope * norm * sae.W_enc[:, j]
                    grads["W_dec"][j] += slope * code * sae.W_dec[j] / norm
    Tanh()(step_of(sae, x)).backward()
    for name, parameter in sae.named_parameters():
        assert grads[name].any()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-9, atol=1e-12)


def test_it_is_l1_of_small_latents_and_l0_of_large_ones(x: Tensor, randomised, step_of) -> None:
    sae = randomised(ReLU(d_in=6, d_sae=40).double())
    step = step_of(sae, x)
    assert Tanh(steepness=1e-6)(step).item() == pytest.approx(1e-6 * L1()(step).item(), rel=1e-6)
    assert Tanh(steepness=1e9)(step).item() == pytest.approx(step.latents.values.count_nonzero().item() / len(x))


def test_the_coefficient_rises_over_the_whole_run(x: Tensor, randomised, step_of) -> None:
    sae = randomised(ReLU(d_in=6, d_sae=40).double())
    values = [Tanh()(step_of(sae, x, progress=progress)).item() for progress in (0.0, 0.5, 1.0)]
    assert values[:2] == pytest.approx([0, values[2] / 2])


@pytest.mark.parametrize("wrong", [{"coefficient": -1.0}, {"steepness": 0.0}, {"warmup": 1.5}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Tanh has coefficient .* steepness .* warmup .* choose such values"):
        Tanh(**wrong)
