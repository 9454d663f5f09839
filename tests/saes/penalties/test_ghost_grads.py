import pytest
import torch
from torch import Tensor

from saes.base import SAE
from saes.penalties.ghost_grads import GhostGrads
from saes.topk import TopK


def _slow(sae: SAE, x: Tensor, recon: Tensor, dead: list[int], coefficient: float) -> Tensor:
    """The five steps of the update, row by row; factors are constants."""
    residual = (x - recon).detach()
    total = torch.zeros((), dtype=x.dtype)
    for row, error in zip(x, residual, strict=True):
        ghost = sum(torch.exp((row - sae.b_dec) @ sae.W_enc[:, i] + sae.b_enc[i]) * sae.W_dec[i] for i in dead)
        ghost = ghost * (error.norm() / 2 / ghost.norm()).detach()
        total = total + (ghost - error).square().sum()
    return coefficient * total * (residual.square().sum() / total).detach() / len(x)


@pytest.fixture
def sae(randomised) -> SAE:
    return randomised(TopK(d_in=6, d_sae=16, k=3).double())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dead", [[3], [0, 3, 4, 9, 15], list(range(16))])
def test_ghost_grads_are_the_slow_ones(dead: list[int], sae: SAE, x: Tensor, step_of) -> None:
    step = step_of(sae, x, dead=torch.isin(torch.arange(16), torch.tensor(dead)))
    found, expected = GhostGrads(0.5)(step), _slow(sae, x, step.recon, dead, 0.5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert found.item() == pytest.approx(0.5 * float(step.residual.square().sum(1).mean().detach()), rel=1e-12)
    parameters = list(sae.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_reach_dead_latents_only_below_zero_too(sae: SAE, x: Tensor, step_of) -> None:
    dead = torch.arange(16) < 4
    with torch.no_grad():
        sae.b_enc[dead] = -10.0
    GhostGrads()(step_of(sae, x, dead=dead)).backward()
    for moved in (sae.W_enc.grad.T.abs().sum(1), sae.W_dec.grad.abs().sum(1), sae.b_enc.grad.abs()):
        assert (moved[dead] > 0).all()
        assert (moved[~dead] == 0).all()


@pytest.mark.parametrize("bias", [-1e5, 1e5])
def test_no_exponential_overflows(bias: float, sae: SAE, x: Tensor, step_of) -> None:
    with torch.no_grad():
        sae.b_enc[:4] = bias
    penalty = GhostGrads()(step_of(sae, x, dead=torch.arange(16) < 4))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(penalty, list(sae.parameters())))


def test_zero_while_nothing_is_dead(sae: SAE, x: Tensor, step_of) -> None:
    assert float(GhostGrads()(step_of(sae, x, dead=torch.zeros(16, dtype=torch.bool)))) == 0


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"GhostGrads has coefficient -0\.1, .* or penalties=\(\) for none"):
        GhostGrads(-0.1)
