import itertools

import pytest
import torch

from saes.metrics.matching import cosines, matched


def test_cosines_equal_torch_and_an_empty_row_has_none():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(5, 4, generator=generator), torch.randn(7, 4, generator=generator)
    second[2] = 0
    slow = torch.stack([torch.cosine_similarity(row[None], second, dim=1) for row in first])
    assert torch.allclose(cosines(first, second), slow, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 4)])
def test_the_best_of_all_pairings(shape):
    cosine = torch.rand(*shape, generator=torch.Generator().manual_seed(1)) - 0.3
    small, large = (cosine, cosine.T)[:: 1 if shape[0] <= shape[1] else -1]
    best = max(
        float(small[torch.arange(len(small)), list(order)].sum())
        for order in itertools.permutations(range(len(large)), len(small))
    )
    pairs = matched(cosine)
    assert float(pairs.cosine.sum()) == pytest.approx(best, rel=1e-6)
    assert len(pairs.first) == len(set(pairs.first.tolist())) == len(set(pairs.second.tolist())) == min(shape)
    assert torch.equal(pairs.cosine, cosine[pairs.first, pairs.second])
    # A greedy choice, each row's nearest, would pair some twice.
    assert len(set(small.argmax(dim=1).tolist())) < len(small)
