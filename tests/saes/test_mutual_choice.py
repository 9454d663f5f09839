import itertools

import pytest
import torch
from torch import Tensor

from saes.batch_topk import BatchTopK
from saes.mutual_choice import MutualChoice
from saes.penalties.aux_zipf import AuxZipf


def _draw(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_no_other_pairs_of_that_number_have_a_larger_sum(seed: int) -> None:
    """3 rows, 4 features, 2 a row: all 924 masks."""
    sae = MutualChoice(d_in=4, d_sae=4, k=2).double()
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(4))
    affinities = _draw(3, 4, seed).relu()
    best = max(affinities.flatten()[list(mask)].sum() for mask in itertools.combinations(range(12), 6))
    latents = sae.train().encode(affinities)
    assert len(latents.values) <= 6
    assert float(latents.values.sum().detach()) == pytest.approx(float(best))


def test_it_chooses_as_batch_topk_does(randomised) -> None:
    mutual, batch = (randomised(method(d_in=6, d_sae=40, k=4).double()) for method in (MutualChoice, BatchTopK))
    x = _draw(30, 6)
    for training in (True, False):
        ours, theirs = (sae.train(training).encode(x) for sae in (mutual, batch))
        assert torch.equal(ours.indices, theirs.indices)
        assert torch.equal(ours.offsets, theirs.offsets)
    assert torch.equal(mutual.threshold, batch.threshold)
    assert mutual.default_penalties() == (AuxZipf(),)
    assert type(mutual) is not type(batch)


def test_evaluation_before_the_first_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold is not set.* train this MutualChoice .* or call \.train\(\)"):
        MutualChoice(d_in=6, d_sae=64).eval().encode(torch.zeros(2, 6))
