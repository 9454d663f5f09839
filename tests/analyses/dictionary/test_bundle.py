import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from analyses.dictionary.bundle import FeatureDictionary
from analyses.dictionary.histograms import bin_edges


@pytest.fixture(params=[False, True], ids=["unsigned", "signed"])
def case(request, planted, store, tmp_path):
    directions = planted(signed=request.param)
    bundle = FeatureDictionary.build(directions, store, tmp_path / "dict", top=4, random=3, progress=False)
    rows = store.span(0, len(store))
    return bundle, store, rows, directions.encode(rows.values).dense().numpy(), request.param


def firings(rows, codes, feature):
    """(value, example, position) of each firing, one row after another."""
    addresses = zip(rows.example.tolist(), rows.position.tolist(), strict=True)
    return [(float(codes[r, feature]), e, p) for r, (e, p) in enumerate(addresses) if codes[r, feature]]


def test_statistics_equal_a_loop_over_all_rows(case):
    bundle, store, rows, codes, signed = case
    table, edges = bundle.features(), bundle.edges()
    for f in range(codes.shape[1]):
        values = [value for value, _, _ in firings(rows, codes, f)]
        assert table["count"][f] == len(values)
        assert table["density"][f] == len(values) / len(store)
        assert table["dead"][f] == (not values)
        if not values:
            continue
        assert table["mean"][f] == np.float32(sum(values) / len(values))
        assert (table["min"][f], table["max"][f]) == (min(values), max(values))
        expected = [sum(a <= abs(v) < b if v > 0 else a < v <= b for v in values) for a, b in pairwise(edges)]
        if not signed:
            assert table["histogram"][f].tolist() == expected
        assert table["histogram"][f].sum() == len(values)
        widest = np.diff(edges).max()
        assert np.abs(table["quantiles"][f] - np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])).max() <= 2 * widest


def test_dead_feature_and_own_labels(case):
    bundle, *_ = case
    table = bundle.features()
    assert table["dead"][5] and bundle.feature(5) == [] and table["max"][5] == 0
    assert table["label"][3] == "three" and table["label"][4] is None
    assert bundle.manifest["counts"]["dead"] == table["dead"].sum()


def test_top_examples_are_the_strongest_with_one_an_item(case):
    bundle, _, rows, codes, _ = case
    for f in range(codes.shape[1]):
        best = {}
        for value, example, position in sorted(firings(rows, codes, f), key=lambda x: (-abs(x[0]), x[1], x[2])):
            best.setdefault(example, (value, example, position))
        found = [e for e in bundle.feature(f) if e["bin"] == "top"]
        assert [(e["activation"], e["item"], e["position"]) for e in found] == list(best.values())[:4]
        assert [e["rank"] for e in found] == list(range(len(found)))


def test_other_examples_are_firings_of_their_bin(case):
    bundle, _, rows, codes, _ = case
    for f in range(codes.shape[1]):
        known = set(firings(rows, codes, f))
        examples = bundle.feature(f)
        drawn = [(e["activation"], e["item"], e["position"]) for e in examples if e["bin"] == "random"]
        assert set(drawn) <= known and len(set(drawn)) == min(3, len(known))
        spread = [e for e in examples if e["bin"] == "quantile"]
        assert {(e["activation"], e["item"], e["position"]) for e in spread} <= known
        for low, high in pairwise(spread):
            assert low["quantile"] <= high["quantile"]
            assert low["quantile"] == high["quantile"] or low["activation"] <= high["activation"]
        assert all(sum(e["quantile"] == q for e in spread) <= 4 for q in range(5))
        if len({value for value, _, _ in known}) > 12:
            assert {0, 4} <= {e["quantile"] for e in spread}


def test_windows_hold_every_activation_and_piece_around(case):
    bundle, store, rows, codes, _ = case
    at = {(e, p): r for r, (e, p) in enumerate(zip(rows.example.tolist(), rows.position.tolist(), strict=True))}
    zero = bundle.manifest["heat"]["zero"]
    for f in range(0, codes.shape[1], 3):
        for e in bundle.feature(f):
            pieces = store.items[e["item"]].pieces
            start, stop = max(0, e["position"] - 24), min(e["position"] + 25, len(pieces))
            assert e["start"] == start and e["tokens"] == list(pieces[start:stop])
            true = [codes[at[e["item"], p], f] if (e["item"], p) in at else 0.0 for p in range(start, stop)]
            shown = (np.array(e["window"], np.int64) - zero) * e["scale"]
            assert len(shown) == stop - start
            assert np.abs(shown - true).max() <= e["scale"] * 0.501
            assert [s == zero for s in e["window"]] == [v == 0 for v in true]


def test_row_groups_hold_64_features(case):
    bundle, _, _, codes, _ = case
    file = pq.ParquetFile(bundle.path / "examples.parquet")
    assert file.num_row_groups == -(-codes.shape[1] // 64)
    for group in range(file.num_row_groups):
        features = file.read_row_group(group).column("feature").to_numpy()
        assert ((features // 64) == group).all() and (np.diff(features) >= 0).all()


def test_neighbours_by_firing_equal_jaccard_counted_by_loop(case):
    bundle, _, _, codes, _ = case
    fires = codes != 0
    for f in range(codes.shape[1]):
        if fires[:, f].sum() > 64:
            continue  # Estimated from a sample.
        both = (fires & fires[:, [f]]).sum(0)
        jaccard = both / np.maximum(fires.sum(0) + fires[:, f].sum() - both, 1)
        jaccard[f] = 0
        order = sorted(np.flatnonzero(jaccard), key=lambda g: (-np.float32(jaccard[g]), g))[:8]
        found = [n for n in bundle.neighbours(f) if n["kind"] == "cofire"]
        assert [n["other"] for n in found] == order
        np.testing.assert_allclose([n["value"] for n in found], jaccard[order], rtol=1e-6)


def test_text_is_stored_as_it_is(case):
    bundle, store, *_ = case
    items = bundle.items()
    place = items["id"].tolist().index(0)
    assert items["text"][place] == "".join(store.items[0].pieces)
    assert "<b>" in "".join(items["text"]) and "&amp;" in "".join(items["text"])
    assert json.loads(items["labels"][place]) == dict(store.items[0].labels)


def test_manifest_says_what_and_from_where_but_not_when_or_where(case):
    bundle, store, *_, signed = case
    manifest = bundle.manifest
    assert manifest["source"]["provenance"] == {"dataset": "planted"}
    assert manifest["source"]["fingerprint"] == store.fingerprint
    assert manifest["directions"]["signed"] == signed and manifest["directions"]["provenance"] == {"made": "here"}
    assert manifest["counts"]["rows"] == len(store)
    assert set(manifest["histogram"]["edges"]) <= set(bin_edges(signed))
    assert str(bundle.path.parent) not in json.dumps(manifest)


def test_labels_are_written_and_the_rest_kept(case):
    bundle, *_ = case
    before = bundle.features()
    bundle.label({2: ("token class: digit", 0.97)})
    after = bundle.features()
    assert after["label"][2] == "token class: digit" and after["label"][3] == "three"
    assert after["label_score"][2] == np.float32(0.97) and np.isnan(after["label_score"][3])
    for name in set(before) - {"label", "label_score"}:
        np.testing.assert_array_equal(before[name], after[name])


def test_refusals_name_the_way_out(planted, store, tmp_path):
    directions = planted()
    build = FeatureDictionary.build
    with pytest.raises(ValueError, match="width 6, these directions take 5: give the store of their site"):
        build(planted(d_in=5), store, tmp_path / "dict")
    with pytest.raises(ValueError, match="max_memory is 1000 bytes, but the statistics of 70 features take about"):
        build(directions, store, tmp_path / "dict", max_memory=1000)
    with pytest.raises(ValueError, match="top is -1, but a number of examples is at least 0"):
        build(directions, store, tmp_path / "dict", top=-1)
    with pytest.raises(ValueError, match="checkpoint_rows is 0"):
        build(directions, store, tmp_path / "dict", checkpoint_rows=0)
    with pytest.raises(ValueError, match=r"holds no manifest\.json"):
        FeatureDictionary(tmp_path)
    bundle = build(directions, store, tmp_path / "dict", progress=False)
    with pytest.raises(IndexError, match="feature is 70, but the bundle holds features 0 to 69"):
        bundle.feature(70)
    manifest = json.loads((bundle.path / "manifest.json").read_text()) | {"schema": 99}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="schema 99, this version reads 1: build it again"):
        FeatureDictionary(bundle.path)
