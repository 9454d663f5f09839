import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from analyses.dictionary.ranking import Scores, Standings


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_auroc_equals_scikit_learn(signed, ties):
    rng = np.random.default_rng(0)
    n, groups = 400, 12
    dense = rng.normal(size=(n, groups)).astype(np.float32)
    dense = np.round(dense) if ties else dense
    dense[rng.random(dense.shape) < 0.6] = 0
    dense = dense if signed else np.maximum(dense, 0)
    group, rows = dense.T.nonzero()
    standings = Standings.of(dense[rows, group], group, np.full(groups, n))
    for _ in range(2):  # What is sorted once serves any labels.
        marks = rng.random((n, groups)) < np.linspace(0.02, 0.9, groups)
        found = standings.auroc(marks[rows, group], marks.sum(0), (~marks).sum(0))
        expected = [roc_auc_score(marks[:, g], dense[:, g]) for g in range(groups)]
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)


def test_standings_equal_comparisons_with_every_row():
    dense = np.array([[2, 0, 0], [-1, 0, 3], [2, 0, 3], [0, 0, 3], [0, 0, -4]], np.float32)
    group, rows = dense.T.nonzero()
    standings = Standings.of(dense[rows, group], group, np.full(3, 5))
    against = 2 * (dense[:, None] > dense).sum(1) + (dense[:, None] == dense).sum(1)
    np.testing.assert_array_equal(standings.of_scores, against[rows, group])
    assert standings.of_zero.tolist() == [2 * 1 + 2, 5, 2 * 1 + 1]


def test_auroc_of_silent_features_and_absent_labels():
    nothing = np.empty(0)
    standings = Standings.of(nothing.astype(np.float32), nothing.astype(np.int64), np.array([8, 8]))
    found = standings.auroc(nothing.astype(bool), np.array([3, 0]), np.array([5, 8]))
    assert found[0] == 0.5 and np.isnan(found[1])


@pytest.mark.parametrize("signed", [False, True])
def test_largest_score_of_each_item_counts_zeros(signed):
    rng = np.random.default_rng(1)
    dense = np.round(rng.normal(size=(60, 9)), 1).astype(np.float32)
    dense[rng.random(dense.shape) < 0.4] = 0
    dense = dense if signed else np.maximum(dense, 0)
    dense[:20] = -np.abs(dense[:20]) - 1 if signed else dense[:20]
    group = np.sort(rng.integers(0, 25, 60))
    group = np.unique(group, return_inverse=True)[1]
    groups = int(group.max()) + 1
    rows, features = dense.nonzero()
    items = Scores.collect(dense[rows, features], features, rows, 60, 9).largest_by(group, groups)
    expected = np.stack([dense[group == g].max(0) for g in range(groups)])
    found = np.zeros_like(expected)
    values, item, feature = items.chunk(0, 9)
    found[item, feature] = values
    np.testing.assert_array_equal(found, expected)
    assert (values != 0).all()
