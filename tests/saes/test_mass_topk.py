import pytest
import torch
from torch import Tensor

from saes.mass_topk import MassTopK
from saes.topk import TopK


def _x(n: int = 40) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _slow(sae: MassTopK, x: Tensor) -> Tensor:
    """Row by row: add the largest until they are enough."""
    codes = torch.zeros(len(x), sae.d_sae, dtype=x.dtype)
    for i, row in enumerate(x):
        positive = torch.relu((row - sae.b_dec) @ sae.W_enc + sae.b_enc)
        held = 0.0
        for j in positive.sort(descending=True).indices[: sae.k_max].tolist():
            if held >= sae.mass * float(positive.sum()):
                break
            codes[i, j] = positive[j]
            held += float(positive[j])
    return codes


@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("k_max", [1, 5, 64])
def test_the_choice_is_the_slow_one(mass: float, k_max: int, randomised) -> None:
    sae = randomised(MassTopK(d_in=6, d_sae=64, mass=mass, k_max=k_max).double())
    for training in (True, False):
        codes = sae.train(training).encode(_x()).dense()
        torch.testing.assert_close(codes, _slow(sae, _x()), rtol=1e-12, atol=1e-12)
    counts = (codes != 0).sum(1)
    assert int(counts.max()) <= k_max
    assert k_max < 64 or counts.unique().numel() > 1


def test_all_of_the_mass_is_every_positive_entry(randomised) -> None:
    sae = randomised(MassTopK(d_in=6, d_sae=64, mass=1.0, k_max=64).double())
    with torch.no_grad():
        sae.W_enc[:, 0] *= 1e-18  # Beyond the last digit of the sum.
        sae.b_enc[0] = 1e-20
        pre_acts = (_x() - sae.b_dec) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(sae.encode(_x()).dense() > 0, pre_acts > 0)


def test_a_larger_share_keeps_what_a_smaller_one_does(randomised) -> None:
    kept = torch.zeros(40, 64, dtype=torch.bool)
    for mass in (0.05, 0.2, 0.4, 0.6, 0.8, 0.99, 1.0):
        before, kept = kept, randomised(MassTopK(d_in=6, d_sae=64, mass=mass).double()).encode(_x()).dense() > 0
        assert (kept | ~before).all()
        assert int(kept.sum()) > int(before.sum())


def test_of_equal_activations_it_keeps_as_many_as_topk() -> None:
    saes = MassTopK(d_in=1, d_sae=8, mass=0.5, k_max=8), TopK(d_in=1, d_sae=8, k=4)
    for sae in saes:
        sae.W_enc.data.fill_(1.0)
    counts = [sae.encode(torch.tensor([[0.5], [2.0], [-1.0]])).offsets.diff().tolist() for sae in saes]
    assert counts == [[4, 4, 0], [4, 4, 0]]


def test_impossible_arguments_are_refused() -> None:
    for mass in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"mass is {mass}, but it is a share in \(0, 1\]"):
            MassTopK(d_in=6, d_sae=64, mass=mass)
    with pytest.raises(ValueError, match=r"k_max is 65, but it is a whole number in 1\.\.d_sae = 64"):
        MassTopK(d_in=6, d_sae=64, k_max=65)
