import pytest
import torch

from interp.models.synthetic import SyntheticWorld
from interp.types import Activations, Latents
from saes.metrics.firing_f1 import firing_f1


class Told:
    """A dictionary that is told its codes, one table for the rows in order."""

    signed, trainable, site, labels, provenance, W_enc = True, False, None, {}, {}, None

    def __init__(self, W_dec: torch.Tensor, codes: torch.Tensor) -> None:
        self.W_dec, self.codes = W_dec, codes
        self.d_sae, self.d_in = W_dec.shape

    def encode(self, x):
        return Latents.from_dense(self.codes[x[:, 0].long()])

    def decode(self, latents):
        return latents.dense() @ self.W_dec


def rows(n: int, per_example: int = 1) -> Activations:
    """Rows that say their number in their first channel."""
    values = torch.arange(n)[:, None] * torch.ones(1, 6)
    return Activations(values.float(), torch.arange(n) // per_example, torch.zeros(n, dtype=torch.long))


@pytest.fixture
def tables() -> tuple[torch.Tensor, torch.Tensor]:
    """True and found codes of 300 rows and 6 features, found with misses and false alarms; feature 5 never fires."""
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(300, 6, generator=generator) * (torch.rand(300, 6, generator=generator) < 0.3)
    true[:, 5] = 0
    found = true * (torch.rand(300, 6, generator=generator) < 0.8)
    found += torch.rand(300, 6, generator=generator) * (torch.rand(300, 6, generator=generator) < 0.1)
    return true, found


def test_equals_a_loop_over_features(tables):
    true, found = tables
    features = torch.eye(6)
    order = [3, 1, 4, 0, 2]  # The latents in another order, and feature 5 has none.
    result = firing_f1(Told(features[order], found[:, order]), features, rows(300), Latents.from_dense(true))
    expected, precisions, recalls = [], [], []
    for i in range(5):
        right = int(((true[:, i] != 0) & (found[:, i] != 0)).sum())
        precisions.append(right / int((found[:, i] != 0).sum()))
        recalls.append(right / int((true[:, i] != 0).sum()))
        expected.append(2 * precisions[i] * recalls[i] / (precisions[i] + recalls[i]))
    assert result.per_feature.tolist() == pytest.approx([*expected, 0.0])
    assert result.f1.value == pytest.approx(sum(expected) / 5)  # Feature 5 never fires: it is left out.
    assert result.precision.value == pytest.approx(sum(precisions) / 5)
    assert result.recall.value == pytest.approx(sum(recalls) / 5)
    assert result.f1.low < result.f1.value < result.f1.high


def test_batches_change_nothing_and_examples_widen_the_interval(tables):
    true, found = tables
    features, codes = torch.eye(6), Latents.from_dense(true.repeat_interleave(4, 0))
    told = Told(features, found.repeat_interleave(4, 0))
    whole = firing_f1(told, features, rows(1200), codes)
    parts = firing_f1(told, features, rows(1200), codes, batch_size=7)
    assert (parts.f1, parts.recall) == (whole.f1, whole.recall)
    by_example = firing_f1(told, features, rows(1200, per_example=4), codes)
    assert by_example.f1.value == pytest.approx(whole.f1.value)
    assert by_example.f1.high - by_example.f1.low > 1.5 * (whole.f1.high - whole.f1.low)


def test_the_true_dictionary_of_a_world_is_perfect_and_a_duplicate_does_not_help():
    world = SyntheticWorld(n_features=12, d_in=12, mean_l0=2.0, noise=0.0)
    sample, codes = world.sample(500)
    told = Told(world.features, codes.dense())
    numbered = Activations(rows(500).values.repeat(1, 2), sample.example, sample.position)
    assert firing_f1(told, world.features, numbered, codes).f1.value == 1
    half = Told(world.features[[0, 0, 1]], codes.dense()[:, [0, 0, 1]])
    f1 = firing_f1(half, world.features, numbered, codes)
    assert f1.per_feature.tolist()[:2] == [1, 1]
    # The second of a pair of duplicates stands for a stranger, and tells it by chance.
    assert f1.f1.value == pytest.approx(float(f1.per_feature.sum()) / 12)
    assert f1.f1.value < 2.3 / 12
    assert set(f1.to_json()) == {"f1", "precision", "recall"}


def test_codes_of_other_rows_are_refused():
    with pytest.raises(ValueError, match=r"codes are 4 of 6 features, but there are 5 rows and 6 features"):
        firing_f1(Told(torch.eye(6), torch.ones(5, 6)), torch.eye(6), rows(5), Latents.from_dense(torch.ones(4, 6)))
