import pytest
import torch
from torch import Tensor

from saes.abs_topk import AbsTopK
from saes.penalties.base import reconstruction
from saes.penalties.l1 import L1
from saes.topk import TopK


def _slow(sae: AbsTopK, x: Tensor) -> Tensor:
    """Equation 12: hard thresholding to the k entries of largest size, a row at a time, signs kept."""
    rows = []
    for row in x:
        pre_acts = [(row - sae.b_dec) @ sae.W_enc[:, f] + sae.b_enc[f] for f in range(sae.d_sae)]
        kept = sorted(range(sae.d_sae), key=lambda f: abs(float(pre_acts[f].detach())), reverse=True)[: sae.k]
        rows.append(
            torch.stack([pre_acts[f] if f in kept else torch.zeros_like(pre_acts[f]) for f in range(sae.d_sae)])
        )
    return torch.stack(rows)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 4, 24])
def test_abs_top_k_is_the_slow_one_and_so_are_its_gradients(k: int, x: Tensor, randomised, step_of) -> None:
    sae = randomised(AbsTopK(d_in=6, d_sae=24, k=k).double())
    expected, step = _slow(sae, x), step_of(sae, x)
    for training in (True, False):
        found = sae.train(training).encode(x).dense()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (expected < 0).any()
    assert (expected > 0).any()
    loss = (expected @ sae.W_dec + sae.b_dec - x).square().sum() / len(x)
    parameters = list(sae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(reconstruction(step), parameters), torch.autograd.grad(loss, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_mirrored_feature_is_the_same_feature(x: Tensor, randomised) -> None:
    """Codes change sign with their encoder and decoder rows, and the reconstruction does not change."""
    sae = randomised(AbsTopK(d_in=6, d_sae=24, k=4).double()).eval()
    before, recon = sae.encode(x).dense(), sae(x)
    with torch.no_grad():
        sae.W_enc[:, ::2] *= -1
        sae.b_enc[::2] *= -1
        sae.W_dec[::2] *= -1
    after = sae.encode(x).dense()
    torch.testing.assert_close(after[:, 1::2], before[:, 1::2])
    torch.testing.assert_close(after[:, ::2], -before[:, ::2])
    torch.testing.assert_close(sae(x), recon)


def test_of_positive_pre_activations_it_is_top_k(x: Tensor, randomised) -> None:
    ours = randomised(AbsTopK(d_in=6, d_sae=24, k=4).double())
    theirs = TopK(d_in=6, d_sae=24, k=4).double()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for sae in (ours, theirs):
            sae.b_enc += 100
    assert torch.equal(ours.encode(x).dense(), theirs.encode(x).dense())


def test_l1_takes_the_sizes_of_signed_codes(x: Tensor, randomised, step_of) -> None:
    sae = randomised(AbsTopK(d_in=6, d_sae=24, k=4).double())
    expected = (sae.encode(x).dense().abs() * sae.W_dec.norm(dim=1)).sum() / len(x)
    torch.testing.assert_close(L1()(step_of(sae, x)), expected)


def test_impossible_k_is_refused() -> None:
    with pytest.raises(ValueError, match=r"k is 65, but it is a whole number in 1\.\.d_sae = 64: choose"):
        AbsTopK(d_in=6, d_sae=64, k=65)
