import numpy as np
import pytest

from analyses.dictionary.keeping import Kept, drawn, strongest_first


def offered(seed, n=5000, groups=13):
    rng = np.random.default_rng(seed)
    value = rng.integers(1, 40, n).astype(np.float32)  # Many ties.
    example = np.sort(rng.integers(0, 300, n))
    return rng.integers(0, groups, n), strongest_first(value), example, np.arange(n), value


def by_loop(records, n, one_per_example):
    kept = {}
    for group, _, example, position, _ in sorted(
        zip(*(r.tolist() for r in records), strict=True), key=lambda r: r[1:4]
    ):
        mine = kept.setdefault(group, [])
        if len(mine) < n and not (one_per_example and example in {e for e, _ in mine}):
            mine.append((example, position))
    return kept


@pytest.mark.parametrize("one_per_example", [False, True])
@pytest.mark.parametrize("batch", [7, 500, 5000])
def test_the_smallest_of_each_group_are_kept(one_per_example, batch, monkeypatch):
    monkeypatch.setattr("analyses.dictionary.keeping._LEAST_BUFFER", 50)
    records = offered(0)
    kept = Kept(13, 6, one_per_example=one_per_example)
    for start in range(0, 5000, batch):
        kept.offer(*(r[start : start + batch] for r in records))
        if start > 2000:  # Going on from a checkpoint changes nothing.
            kept, old = Kept(13, 6, one_per_example=one_per_example), kept
            kept.load(old.state())
    kept.compact()
    found = {}
    for group, example, position in zip(kept.group.tolist(), kept.example, kept.position, strict=True):
        found.setdefault(group, []).append((example, position))
    assert found == by_loop(records, 6, one_per_example)
    assert kept.rank().tolist() == [rank for group in sorted(found) for rank in range(len(found[group]))]


def test_keys_sort_by_falling_magnitude():
    values = np.array([0.5, -3.0, 2.0, 1e-30, -1e30, 2.0], np.float32)
    order = np.argsort(strongest_first(values), kind="stable")
    assert values[order].tolist() == sorted(values.tolist(), key=lambda v: -abs(v))


def test_draws_depend_on_address_and_feature_only():
    address = np.arange(1000)
    features, rows = np.repeat([0, 1], 1000), np.tile(np.arange(1000), 2)
    keys = drawn(3, features, rows, address)
    again = drawn(3, features[500:700], np.arange(200), address[500:700])
    assert np.array_equal(keys[500:700], again)
    assert len(np.unique(keys)) == 2000 and not np.array_equal(keys, drawn(4, features, rows, address))
    uniform = keys / 2.0**64
    assert abs(uniform.mean() - 0.5) < 0.03 and abs(np.corrcoef(uniform[:1000], uniform[1000:])[0, 1]) < 0.1


def test_nothing_is_kept_when_none_is_asked_for():
    kept = Kept(13, 0)
    kept.offer(*offered(0))
    assert len(kept.rank()) == 0
