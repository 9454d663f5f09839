import pytest
import torch
from torch import Tensor

from saes.abs_topk import AbsTopK
from saes.base import SAE
from saes.jumprelu import JumpReLU
from saes.penalties.l1 import L1
from saes.penalties.p_annealing import PAnnealing
from saes.relu import ReLU


@pytest.fixture
def x() -> Tensor:
    return torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _slow(sae: SAE, x: Tensor, p: float, coefficient: float, floor: float) -> Tensor:
    """lambda_p sum |f|^p, code by code; lambda_p is lambda times the ratio of the sums at 1 and at p."""
    codes, norms = sae.codes(x).dense(), sae.W_dec.norm(dim=1)
    ones, powers = [], []
    for row in codes:
        for code, norm in zip(row, norms, strict=True):
            size = code.abs() * norm
            if size == 0:
                continue
            ones.append(size.detach())
            powers.append(size**p if size > floor else size * floor ** (p - 1))
    scale = sum(ones) / sum(power.detach() for power in powers)
    return coefficient * scale * sum(powers) / len(x)


@pytest.mark.parametrize("method", [ReLU, AbsTopK])
@pytest.mark.parametrize("progress", [0.0, 0.4, 0.7, 1.0])
def test_it_is_the_slow_one(method: type[SAE], progress: float, x: Tensor, randomised, step_of) -> None:
    sae = randomised(method(d_in=6, d_sae=40).double()).train()
    p = {0.0: 1.0, 0.4: 1.0, 0.7: 0.65, 1.0: 0.3}[progress]
    penalty = PAnnealing(0.5, p_end=0.3, start=0.4, floor=0.2, warmup=0.0)
    assert penalty.p(progress) == pytest.approx(p)
    found, expected = penalty(step_of(sae, x, progress=progress)), _slow(sae, x, p, 0.5, floor=0.2)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec]
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [ReLU, AbsTopK, JumpReLU])
@pytest.mark.parametrize("on_sphere", [True, False])
def test_with_a_power_of_1_it_is_l1_to_the_bit(method, on_sphere: bool, x: Tensor, randomised, step_of) -> None:
    sae = randomised(method(d_in=6, d_sae=40).double()).train()
    found = []
    for penalty in (PAnnealing(0.5, p_end=1.0), L1(0.5)):
        sae.zero_grad()
        value = penalty(step_of(sae, x, on_sphere=on_sphere))
        value.backward()
        found.append((value.detach(), *(None if p.grad is None else p.grad.clone() for p in sae.parameters())))
    for ours, theirs in zip(*found, strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_the_penalty_keeps_its_size_while_the_power_falls(x: Tensor, randomised, step_of) -> None:
    sae = randomised(ReLU(d_in=6, d_sae=40).double())
    sizes = [PAnnealing(warmup=0.0)(step_of(sae, x, progress=progress)).item() for progress in (0.0, 0.3, 0.6, 1.0)]
    assert sizes == pytest.approx([L1(warmup=0.0)(step_of(sae, x)).item()] * 4, rel=1e-12)


def test_small_latents_are_pressed_harder_but_not_without_end(step_of) -> None:
    from interp.types import Latents

    values = torch.tensor([1e-30, 1e-3, 0.5, 4.0], requires_grad=True)
    latents = Latents(values, torch.arange(4), torch.tensor([0, 4]), 8)
    penalty = PAnnealing(floor=0.01)(step_of(ReLU(d_in=6, d_sae=8), torch.zeros(1, 6), latents, on_sphere=True))
    (slopes,) = torch.autograd.grad(penalty, values)
    assert (slopes.diff() <= 0).all()
    assert slopes[1] > slopes[2] > slopes[3]
    assert slopes[0] == slopes[1]
    assert slopes.isfinite().all()


def test_where_nothing_fires_it_is_zero(step_of) -> None:
    sae = ReLU(d_in=6, d_sae=8)
    with torch.no_grad():
        sae.b_enc -= 1e6
    assert PAnnealing()(step_of(sae, torch.ones(3, 6))).item() == 0


@pytest.mark.parametrize("wrong", [{"coefficient": -1.0}, {"warmup": 1.5}])
def test_wrong_coefficients_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"PAnnealing has coefficient .* warmup .* choose such values"):
        PAnnealing(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"p_end": 0.0}, {"p_end": 1.5}, {"start": 0.5, "end": 0.5}, {"end": 2.0}, {"floor": 0.0}]
)
def test_wrong_powers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"PAnnealing has p_end .* choose such values"):
        PAnnealing(**wrong)
