import pytest
import torch

from saes.metrics.recovered import recovered


def test_counts_features_at_the_threshold_or_above():
    features = torch.eye(4)
    found = torch.tensor([[0.9, (1 - 0.81) ** 0.5, 0, 0], [0, 0.89, 0, (1 - 0.89**2) ** 0.5], [0, 0, -1, 0]]) * 2
    assert recovered(features, found, threshold=0.8999).value == 0.25
    assert recovered(features, found, threshold=0.85).value == 0.5
    assert recovered(features, features * 7).value == 1


def test_two_features_may_share_a_row_and_each_counts():
    assert recovered(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([[1.0, 0.05]])).value == 1


def test_the_interval_is_binomial():
    features, found = torch.eye(80), torch.eye(80)[:60]
    interval = recovered(features, found)
    assert interval.value == pytest.approx(0.75)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 80) ** 0.5, rel=0.2)
