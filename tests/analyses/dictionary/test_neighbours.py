import numpy as np
import torch

from analyses.dictionary.encoding import Codes
from analyses.dictionary.gathering import Partners
from analyses.dictionary.keeping import Kept, drawn
from analyses.dictionary.neighbours import firing_together, nearest, plane_of


def test_nearest_rows_are_those_of_largest_cosine(monkeypatch):
    monkeypatch.setattr("analyses.dictionary.neighbours._CHUNK_VALUES", 500)
    x = torch.randn(90, 7, generator=torch.Generator().manual_seed(0))
    feature, other, value = nearest(x, 5)
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    for f in range(90):
        cosines = unit @ unit[f]
        cosines[f] = -2
        order = np.argsort(-cosines)[:5]
        assert other[feature == f].tolist() == order.tolist()
        np.testing.assert_allclose(value[feature == f], cosines[order], rtol=1e-5)


def test_a_lone_feature_has_no_neighbours():
    assert len(nearest(torch.ones(1, 3), 5)[0]) == 0


def test_partners_of_sampled_firings_estimate_the_jaccard_index():
    rng = np.random.default_rng(0)
    n, d = 6000, 300  # More features than one chunk of the sort holds.
    fires = rng.random((n, d)) < 0.02
    fires[:, 1] = fires[:, 0] | (rng.random(n) < 0.01)
    fires[:, 2] = rng.random(n) < 0.9
    fires[:, 3] = np.arange(n) < 20  # Fewer firings than are sampled: exact.
    rows, features = fires.nonzero()
    ones = np.ones(len(rows), np.float32)
    position = np.zeros(n, np.int64)
    offsets = np.concatenate([[0], np.cumsum(fires.sum(1))])
    codes = Codes(ones, features.astype(np.int32), offsets, np.arange(n), position)
    sampled = Kept(d, 64)
    sampled.offer(features, drawn(0, features, rows, codes.address), codes.example[rows], position[rows], ones)
    partners = Partners(sampled, 64)
    for start in range(0, n, 1000):
        span = slice(start, start + 1000)
        begin, end = offsets[start], offsets[start + 1000]
        partners.add(
            Codes(
                ones[begin:end],
                codes.features[begin:end],
                offsets[start : start + 1001] - begin,
                codes.example[span],
                position[span],
            )
        )
    count = fires.sum(0)
    feature, other, value = firing_together(partners, count, 4)
    true = (fires[:, feature] & fires[:, other]).sum(0) / (fires[:, feature] | fires[:, other]).sum(0)
    assert other[feature == 0][0] == 1
    assert np.abs(value - true).mean() < 0.05
    exact = feature == 3
    np.testing.assert_allclose(value[exact], true[exact], rtol=1e-6)
    everyone = np.array([(fires[:, 3] & fires[:, g]).sum() / (fires[:, 3] | fires[:, g]).sum() for g in range(d)])
    everyone[3] = 0
    assert other[exact].tolist() == np.argsort(-everyone.astype(np.float32), kind="stable")[:4].tolist()


def test_the_map_is_the_first_two_principal_components():
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 1, 1, 1])
    plane = plane_of(x)
    unit = (x / x.norm(dim=1, keepdim=True)).double()
    u, s, _ = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    expected = (u * s)[:, :2].numpy()
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), atol=1e-5)
    np.testing.assert_array_equal(plane, plane_of(x))
    np.testing.assert_allclose(plane_of(x * 3), plane, atol=1e-5)  # A direction's length does not count.
