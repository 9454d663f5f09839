import pytest
import torch

from saes.metrics.uniqueness import uniqueness


def test_equals_a_set_of_nearest_features_over_latents():
    generator = torch.Generator().manual_seed(0)
    features, found = torch.randn(9, 5, generator=generator), torch.randn(14, 5, generator=generator)
    nearest = {max(range(9), key=lambda i: abs(float(torch.cosine_similarity(features[i], w, dim=0)))) for w in found}
    assert uniqueness(features, found).value == pytest.approx(len(nearest) / 14)
    assert uniqueness(-features, found * 3).value == pytest.approx(len(nearest) / 14)


def test_true_features_are_unique_and_duplicates_are_not():
    assert uniqueness(torch.eye(6), torch.eye(6)).value == 1
    doubled = uniqueness(torch.eye(6), torch.eye(6).repeat(2, 1))
    assert doubled.value == doubled.low == doubled.high == 0.5


def test_the_interval_says_how_uneven_the_sharing_is():
    found = torch.cat([torch.eye(40), torch.eye(40)[:1].repeat(40, 1)])
    interval = uniqueness(torch.eye(40), found)
    assert interval.value == pytest.approx(0.5)
    assert interval.low < 0.42 < 0.58 < interval.high
