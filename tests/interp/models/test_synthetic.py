import json
import math

import pytest
import torch

from interp.models.synthetic import SyntheticWorld
from interp.stores.shuffling import counter_key


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


@pytest.mark.parametrize(("arguments", "offset"), [({}, 4096), ({"n_features": 40, "d_in": 7, "seed": 3}, 0)])
def test_rows_of_independent_features_are_those_of_the_plain_recipe(arguments, offset):
    """Uniform draws below the probabilities, then magnitudes, then noise, from one generator a block."""
    world = SyntheticWorld(**arguments)
    generator = torch.Generator().manual_seed(int(counter_key(world.seed, 1, offset // 4096)) >> 1)
    fires = torch.rand(4096, world.n_features, generator=generator) < world.probabilities
    codes = torch.zeros(4096, world.n_features)
    codes[fires] = (torch.randn(int(fires.sum()), generator=generator) * 0.25 + 1).abs()
    noise = torch.randn(4096, world.d_in, generator=generator) * 0.02
    rows, found = world.sample(4096, offset=offset)
    assert torch.equal(found.dense(), codes)
    assert torch.equal(rows.values, torch.addmm(noise, codes, world.features))
    assert not world.origin.any()


FAMILY = {"n_features": 64, "d_in": 16, "mean_l0": 6.0, "children_of": {0: [8, 9], 8: [30], 2: [40]}}


@pytest.mark.parametrize("arguments", [FAMILY, {**FAMILY, "correlation": 0.6}])
def test_children_fire_only_with_their_parents_and_all_as_often_as_stated(arguments):
    n = 40_000
    world = SyntheticWorld(**arguments, seed=2)
    fires = (world.sample(n)[1].dense() != 0).float()
    p = world.probabilities
    assert ((fires.mean(0) - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()
    for parent, children in world.children_of.items():
        for child in children:
            assert world.parents[child] == parent
            assert (fires[:, child] <= fires[:, parent]).all()
    # Two children of one parent are independent where it fires.
    both, where = (fires[:, 8] * fires[:, 9]).sum(), fires[:, 0].sum()
    expected = p[8] * p[9] / p[0] ** 2
    assert abs(both / where - expected) < 5 * (expected / where).sqrt()


def test_features_of_a_topic_fire_together_as_a_gaussian_copula_says():
    n, rho = 60_000, 0.5
    world = SyntheticWorld(n_features=64, d_in=8, mean_l0=6.0, correlation=rho, children_of={0: [8]}, seed=1)
    fires = (world.sample(n)[1].dense() != 0).double()
    p = world.probabilities.double()
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    given = torch.special.ndtr((torch.special.ndtri(p)[:, None] - rho**0.5 * z) / (1 - rho) ** 0.5)
    for first, second, alike in ((1, 5, True), (0, 4, True), (3, 63, True), (1, 2, False), (2, 8, False)):
        product = given[first] * given[second] * density if alike else p[first] * p[second] * density
        expected, found = torch.trapezoid(product, z), (fires[:, first] * fires[:, second]).mean()
        assert abs(found - expected) < 5 * (expected / n).sqrt()
    assert fires.sum(1).std() > 1.2 * (p * (1 - p)).sum().sqrt()


def test_an_offset_is_the_same_vector_in_every_row():
    plain, moved = SyntheticWorld(seed=4), SyntheticWorld(offset=5.0, seed=4)
    assert moved.origin.norm().item() == pytest.approx(5)
    assert torch.equal(moved.features, plain.features)
    assert torch.equal(moved.sample(50)[0].values, plain.sample(50)[0].values + moved.origin)


def test_dependent_rows_are_a_function_of_their_number():
    world = SyntheticWorld(**FAMILY, correlation=0.4, offset=1.0)
    rows, codes = world.sample(4200)
    part, part_codes = world.sample(120, offset=4080)
    assert torch.equal(part.values, rows.values[4080:])
    assert torch.equal(part_codes.dense(), codes[4080:].dense())
    provenance = json.loads(json.dumps(world.provenance))
    assert provenance["children_of"] == {"0": [8, 9], "8": [30], "2": [40]}
    assert (provenance["correlation"], provenance["offset"]) == (0.4, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"children_of": {3: [2]}}, r"children_of gives 3 the child 2"),
        ({"children_of": {0: [2], 1: [2]}}, r"children_of gives 1 the child 2, but .* given once"),
        ({"children_of": {0: [256]}}, r"below n_features=256"),
        ({"correlation": 1.0}, r"correlation is 1.0"),
        ({"offset": -1.0}, r"offset -1.0"),
    ],
)
def test_dependence_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticWorld(**arguments)
