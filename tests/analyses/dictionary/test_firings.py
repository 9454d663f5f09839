import numpy as np

from analyses.dictionary.firings import Firings, quantised


def test_each_firing_comes_once_and_only_those_asked_for(store, planted, tmp_path):
    from analyses.dictionary.bundle import FeatureDictionary

    bundle = FeatureDictionary.build(planted(), store, tmp_path / "dict", top=5, random=6, progress=False)
    for top in (2, None):
        expected = sorted(
            {
                (f, e["item"], e["position"], float(np.float32(e["activation"])))
                for f in range(70)
                for e in bundle.feature(f)
                if top is None or (e["bin"] == "top" and e["rank"] < top)
            }
        )
        groups = [Firings.shown(group, top) for group in bundle.groups()]
        found = [tuple(key) for g in groups for key in zip(g.feature, g.item, g.position, g.value, strict=True)]
        assert found == expected
        assert [len(g) for g in groups] == [sum(f < 64 for f, *_ in expected), sum(f >= 64 for f, *_ in expected)]


def test_steps_have_one_scale_a_feature():
    ids = np.array([3, 3, 4, 9])
    maps = [np.array([[1.0, -2.0]]), np.array([[0.5, 0.0]]), np.zeros((1, 2)), np.array([[-1e-30, 1e-30]])]
    maps = [one.astype(np.float32) for one in maps]
    columns = quantised(Firings(ids, ids, ids, ids.astype(float)), np.arange(4.0), maps)
    assert columns["scale"].tolist()[:3] == [np.float32(2 / 127), np.float32(2 / 127), 1.0]
    steps = [row.as_py() for row in columns["values"]]
    assert steps[0] == [128 + 64, 128 - 127] and steps[1] == [128 + 32, 128] and steps[2] == [128, 128]
    assert steps[3] == [1, 255]


def test_no_firing_gives_columns_of_no_row():
    none = np.empty(0, np.int64)
    columns = quantised(Firings(none, none, none, none.astype(float)), none.astype(float), [])
    assert all(len(column) == 0 for column in columns.values())
