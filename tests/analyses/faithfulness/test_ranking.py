"""Rank correlations against scipy's."""

import torch
from scipy.stats import spearmanr

from analyses.faithfulness.ranking import rank_correlation


def test_equals_scipys_with_ties_and_padding() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (5, 30), generator=draw).double() for _ in range(2))
    kept = torch.arange(30) < torch.tensor([30, 4, 12, 29, 7])[:, None]
    found = rank_correlation(a, b, kept)
    for i in range(5):
        expected = spearmanr(a[i][kept[i]], b[i][kept[i]]).statistic
        assert abs(float(found[i]) - expected) < 1e-12


def test_is_a_matter_of_ranks_alone() -> None:
    a = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = torch.ones_like(a, dtype=torch.bool)
    torch.testing.assert_close(rank_correlation(a, a.exp() * 3 + 1, kept), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(rank_correlation(a, -a, kept), -torch.ones(2, dtype=torch.float64))


def test_constant_maps() -> None:
    flat, other = torch.ones(1, 6), torch.arange(6.0)[None]
    kept = torch.ones(1, 6, dtype=torch.bool)
    assert rank_correlation(flat, 2 * flat, kept).tolist() == [1.0]
    assert rank_correlation(flat, other, kept).tolist() == rank_correlation(other, flat, kept).tolist() == [0.0]
