import pytest
import torch

from saes.metrics.mmcs import mmcs


def test_equals_a_loop_and_ignores_order_length_and_strangers():
    generator = torch.Generator().manual_seed(0)
    features, found = torch.randn(7, 5, generator=generator), torch.randn(11, 5, generator=generator)
    slow = [max(float(torch.cosine_similarity(f, w, dim=0)) for w in found) for f in features]
    assert mmcs(features, found) == pytest.approx(sum(slow) / 7, rel=1e-5)
    assert mmcs(features * 3, found.flip(0) * 0.1) == pytest.approx(sum(slow) / 7, rel=1e-5)
    assert mmcs(features, torch.cat([found, features])) == pytest.approx(1)


def test_opposite_and_empty_directions_do_not_count():
    assert mmcs(torch.eye(3), -torch.eye(3)) == 0
    assert mmcs(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == pytest.approx(0.5)
