import pytest
import torch

from interp.pretrain.measures import _RIDGES, _ridges, nearest, ridge_probe, share


def _blobs(n, d=6, classes=3, seed=0, spread=0.4):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return torch.eye(classes, d)[labels] + spread * torch.randn(n, d, generator=generator), labels


def test_ridges_are_least_squares_with_a_free_bias():
    """Augmented rows: sqrt(ridge n) on each weight pulls it to 0, a column of ones is left alone."""
    train, labels = _blobs(40)
    x, targets = train.double() * 3 + 2, torch.nn.functional.one_hot(labels).double()
    for ridge, (weight, bias) in zip(_RIDGES, _ridges(x, targets), strict=True):
        pull = torch.cat([torch.eye(6) * (ridge * 40) ** 0.5, torch.zeros(6, 1)], dim=1).double()
        design = torch.cat([torch.cat([x, torch.ones(40, 1).double()], dim=1), pull])
        solution = torch.linalg.lstsq(design, torch.cat([targets, torch.zeros(6, 3).double()])).solution
        torch.testing.assert_close(torch.cat([weight, bias[None]]), solution)


def test_the_probe_takes_the_ridge_that_is_best_on_the_validation_rows():
    train, labels = _blobs(60, d=30, spread=0.6)
    test, _ = _blobs(50, d=30, spread=0.6, seed=1)
    validation = torch.arange(60) % 4 == 0
    mean, std = train.double().mean(0), train.double().std(0)
    x, targets = (train - mean) / std, torch.nn.functional.one_hot(labels).double()
    right = [
        ((x[validation] @ weight + bias).argmax(dim=1) == labels[validation]).sum().item()
        for weight, bias in _ridges(x[~validation], targets[~validation])
    ]
    weight, bias = _ridges(x, targets)[right.index(max(right))]
    assert len(set(right)) > 2
    assert torch.equal(ridge_probe(train, labels, validation, test), ((test - mean) / std @ weight + bias).argmax(1))


def test_the_ridge_is_chosen_where_noise_abounds():
    """60 columns of noise and 80 rows: with the smallest ridge 0.75 are right, with the chosen one 0.84."""
    train, labels = _blobs(80, d=60, spread=0.3)
    test, answers = _blobs(400, d=60, spread=0.3, seed=1)
    found = ridge_probe(train, labels, torch.arange(80) % 4 == 0, test)
    assert (found == answers).float().mean() > 0.8


def test_constant_features_do_no_harm():
    train, labels = _blobs(100)
    train[:, 5] = 3.0
    found = ridge_probe(train, labels, torch.arange(100) % 4 == 0, train)
    assert (found == labels).float().mean() > 0.8


def test_nearest_is_the_largest_cosine_about_the_mean():
    generator = torch.Generator().manual_seed(0)
    gallery, queries = torch.randn(20, 5, generator=generator) + 10, torch.randn(7, 5, generator=generator) + 10
    mean = gallery.mean(dim=0)
    slow = [
        max(range(20), key=lambda g: float(torch.cosine_similarity(q - mean, gallery[g] - mean, dim=0)))
        for q in queries
    ]
    assert nearest(queries, gallery).tolist() == slow


def test_intervals_are_over_groups():
    """100 rows of 10 groups that agree are 10 draws, not 100: sqrt(.25 / 10) * 1.96 to either side."""
    groups = torch.arange(100) // 10
    hits = (groups % 2).float()
    found = share(hits, groups, seed=0)
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * (0.25 / 10) ** 0.5, abs=0.12)
    alone = share(hits, torch.arange(100), seed=0)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * (0.25 / 100) ** 0.5, abs=0.03)
    assert share(hits, groups, seed=0) == found
    assert str(share(torch.ones(5), torch.arange(5), seed=0)) == "1.000 [1.000, 1.000]"
