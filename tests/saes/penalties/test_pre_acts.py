import pytest
import torch
from torch import Tensor

from saes.jumprelu import JumpReLU
from saes.penalties.pre_acts import PreActs


@pytest.fixture
def x() -> Tensor:
    return torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sae(randomised) -> JumpReLU:
    return randomised(JumpReLU(d_in=6, d_sae=40, bandwidth=0.4, threshold=0.6).double()).train()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("on_sphere", [False, True])
def test_it_is_the_sum_over_all_latents_and_so_are_its_gradients(
    sae: JumpReLU, x: Tensor, training: bool, on_sphere: bool, step_of
) -> None:
    pre_acts, thresholds = (x - sae.b_dec) @ sae.W_enc + sae.b_enc, sae.log_threshold.exp()
    below = torch.relu(thresholds - pre_acts)
    assert (below == 0).any(0).sum() > 10
    expected = (below if on_sphere else below * sae.W_dec.norm(dim=1)).sum() / len(x)
    found = PreActs(coefficient=1.0)(step_of(sae.train(training), x, on_sphere=on_sphere))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for (name, parameter), ours, theirs in zip(
        sae.named_parameters(),
        *(torch.autograd.grad(loss, list(sae.parameters()), allow_unused=True) for loss in (found, expected)),
        strict=True,
    ):
        if on_sphere and name == "W_dec":
            assert ours is theirs is None
        else:
            assert ours.any()
            assert ours.shape == parameter.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_it_moves_latents_that_never_fire(sae: JumpReLU, x: Tensor, step_of) -> None:
    with torch.no_grad():
        sae.b_enc[:5] -= 100
    step = step_of(sae, x)
    assert not step.latents.fired()[:5].any()
    PreActs()(step).backward()
    assert (sae.b_enc.grad[:5] < 0).all()
    assert (sae.log_threshold.grad[:5] > 0).all()


def test_where_everything_fires_it_is_zero(sae: JumpReLU, x: Tensor, step_of) -> None:
    with torch.no_grad():
        sae.b_enc += 1000
    assert PreActs(coefficient=1.0)(step_of(sae, x)).item() == pytest.approx(0, abs=1e-9)


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PreActs has coefficient -0\.1, but it is at least 0"):
        PreActs(coefficient=-0.1)
