import pytest
import torch

from saes.metrics.density import Density, firing_counts
from saes.metrics.l0 import L0


def test_counts_equal_those_of_dense_codes(rows):
    assert torch.equal(firing_counts(rows.latents), (rows.latents.dense() != 0).sum(dim=0))


def test_mean_density_is_l0_over_features_and_the_mean_of_counts(rows):
    found = float(Density().value(Density().statistics(rows).sum(dim=0)))
    assert found == pytest.approx(float(L0().value(L0().statistics(rows).sum(dim=0))) / 9)
    assert found == pytest.approx(float(firing_counts(rows.latents).double().mean()) / 30)
