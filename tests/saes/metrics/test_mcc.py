import itertools

import pytest
import torch

from saes.metrics.mcc import mcc
from saes.metrics.mmcs import mmcs


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equals_the_best_of_all_pairings():
    features, found = random(5, 3, seed=0), random(6, 3, seed=1)
    cosine = [[abs(float(torch.cosine_similarity(f, w, dim=0))) for w in found] for f in features]
    slow = max(sum(cosine[i][j] for i, j in enumerate(order)) for order in itertools.permutations(range(6), 5)) / 5
    assert mcc(features, found).value == pytest.approx(slow, rel=1e-5)


def test_length_sign_order_and_strangers_change_nothing():
    features = random(8, 16, seed=0)
    found = torch.cat([-3 * features.flip(0), random(5, 16, seed=2)])
    interval = mcc(features, found)
    assert interval.value == pytest.approx(1, abs=1e-6)
    assert interval.low == pytest.approx(1, abs=1e-6)


def test_one_row_cannot_stand_for_two_features():
    features = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]])
    found = torch.tensor([[1.0, 0.05, 0.0], [0.0, 0.0, 1.0]])
    assert mmcs(features, found) > 0.99
    assert mcc(features, found).value == pytest.approx(0.5, abs=0.01)


def test_the_interval_is_over_pairs():
    features, found = torch.eye(100), torch.eye(100)
    found[:50] = 0
    interval = mcc(features, found)
    assert interval.value == pytest.approx(0.5)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.05, rel=0.2)
    assert mcc(features, found, resamples=0).low is None
