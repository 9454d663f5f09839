import pytest
import torch

from interp.models.synthetic import SyntheticWorld


def test_features_are_unit_and_probabilities_follow_zipf():
    world = SyntheticWorld()
    assert torch.allclose(world.features.norm(dim=1), torch.ones(256))
    assert world.probabilities.sum().item() == pytest.approx(5.0, rel=1e-5)
    ratio = world.probabilities[0] / world.probabilities[99]
    assert ratio.item() == pytest.approx(100**0.8, rel=1e-4)


@pytest.mark.parametrize("mean_l0", [3.0, 7.9, 8.0])
def test_probabilities_stop_at_one_and_keep_their_sum(mean_l0):
    world = SyntheticWorld(n_features=8, d_in=6, zipf=2.0, mean_l0=mean_l0)
    assert world.probabilities.max() <= 1
    assert world.probabilities.sum().item() == pytest.approx(mean_l0, rel=1e-5)
    assert (world.probabilities.diff() <= 0).all()


def test_moments_equal_their_closed_forms():
    n = 20_000
    world = SyntheticWorld(n_features=32, d_in=16, mean_l0=4.0, noise=0.1, seed=3)
    rows, codes = world.sample(n)
    dense = codes.dense()
    p = world.probabilities
    assert (((dense != 0).float().mean(0) - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()
    l0_std = (p * (1 - p)).sum().sqrt() / n**0.5
    assert abs((dense != 0).sum(1).float().mean() - 4.0) < 5 * l0_std
    # |N(1, .25)| is N(1, .25) up to 3e-5 of its mass: E|m|^2 = 1 + .25^2, and E|x|^2 = trace of the covariance.
    mean = p @ world.features
    expected = (p * (1 + 0.25**2)).sum() - (p**2).sum() + mean.square().sum() + 16 * 0.1**2
    found = rows.values.square().sum(1)
    assert abs(found.mean() - expected) < 5 * found.std() / n**0.5
    residual = rows.values - dense @ world.features
    assert residual.std().item() == pytest.approx(0.1, rel=0.02)
    assert (codes.values > 0).all()


def test_any_span_is_the_same_rows():
    world = SyntheticWorld(seed=1)
    rows, codes = world.sample(9000)
    for start, n in ((0, 10), (4090, 20), (4096, 4096), (8000, 1000)):
        part, part_codes = world.sample(n, offset=start)
        assert torch.equal(part.values, rows.values[start : start + n])
        assert torch.equal(part.example, torch.arange(start, start + n))
        assert torch.equal(part_codes.dense(), codes[start : start + n].dense())
    assert torch.equal(world.store(20, offset=4090).span(0, 20).values, rows.values[4090:4110])


def test_blocks_and_seeds_differ():
    world, other = SyntheticWorld(seed=1), SyntheticWorld(seed=2)
    assert not torch.equal(world.features, other.features)
    assert not torch.equal(world.sample(5)[0].values, world.sample(5, offset=4096)[0].values)
    assert world.store(5).fingerprint != other.store(5).fingerprint


def test_store_says_where_its_rows_come_from():
    store = SyntheticWorld(seed=5).store(30, offset=10)
    assert (len(store), store.d_in, len(store.items)) == (30, 64, 30)
    assert store.provenance["seed"] == 5
    assert store.provenance["rows"] == [10, 40]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean_l0": 9.0, "n_features": 8}, r"mean_l0 is 9.0, but of 8 features"),
        ({"d_in": 0}, r"d_in is 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticWorld(**arguments)
    with pytest.raises(ValueError, match=r"n is 0 and offset 0"):
        SyntheticWorld().store(0)
