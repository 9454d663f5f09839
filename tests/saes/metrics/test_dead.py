import torch

from saes.metrics.dead import Dead
from saes.metrics.density import firing_counts


def test_counts_features_that_never_fire(rows):
    assert Dead().value(firing_counts(rows.latents)) == 1 / 9
    assert Dead().value(torch.tensor([0, 3, 0, 1])) == 0.5
