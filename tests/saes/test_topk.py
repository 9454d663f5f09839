import pytest
import torch
from torch import Tensor

from saes.penalties.aux_k import AuxK
from saes.topk import TopK


def _slow(sae: TopK, x: Tensor) -> Tensor:
    """z = TopK(W_enc (x - b_pre) + b_enc) after a ReLU, a row at a time."""
    codes = torch.zeros(len(x), sae.d_sae, dtype=x.dtype)
    for i, row in enumerate(x):
        pre_acts = (row - sae.b_dec) @ sae.W_enc + sae.b_enc
        for feature in sorted(range(sae.d_sae), key=lambda f: float(pre_acts[f]), reverse=True)[: sae.k]:
            codes[i, feature] = max(float(pre_acts[feature]), 0.0)
    return codes


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 4, 24, 64])
def test_top_k_is_the_slow_one(k: int, randomised) -> None:
    sae = randomised(TopK(d_in=6, d_sae=64, k=k).double())
    x = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        latents = sae.train(training).encode(x)
        torch.testing.assert_close(latents.dense(), _slow(sae, x), rtol=1e-12, atol=1e-12)
        assert latents.offsets.diff().max() <= k


def test_full_rows_are_kept_without_offsets() -> None:
    sae = TopK(d_in=6, d_sae=64, k=3)
    latents = sae.encode(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)))
    assert latents.k == 3
    assert (latents.indices.view(20, 3).diff(dim=1) > 0).all()


def test_codes_scale_with_the_input() -> None:
    sae = TopK(d_in=6, d_sae=64, k=5)
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    one, two = sae.encode(x), sae.encode(2 * x)
    assert torch.equal(one.indices, two.indices)
    torch.testing.assert_close(2 * one.values, two.values)


def test_the_default_penalty_revives() -> None:
    assert TopK(d_in=6, d_sae=64).default_penalties() == (AuxK(),)


@pytest.mark.parametrize("k", [0, -1, 65])
def test_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k is {k}, but it is a whole number in 1\.\.d_sae = 64: choose"):
        TopK(d_in=6, d_sae=64, k=k)
