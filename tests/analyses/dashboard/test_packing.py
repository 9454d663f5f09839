import base64
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from analyses.dashboard.packing import FEATURES_A_CHUNK, PackedBundle, plain, script
from analyses.dictionary.bundle import FeatureDictionary

START = b"unweave.receive("


def arguments(data):
    """What a script hands over."""
    assert data.startswith(START)
    assert data.endswith(b");\n")
    return json.loads(b"[" + data[len(START) : -3] + b"]")


@pytest.fixture(scope="module")
def packed(bundle_path):
    return PackedBundle("planted", FeatureDictionary(bundle_path))


@pytest.fixture(scope="module")
def chunks(packed):
    return [arguments(chunk) for chunk in packed.chunks()]


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", "\ud800", "é\x00\\\"'"])
def test_no_text_leaves_its_script(text):
    data = script("unweave.receive", {text: [text]})
    assert data.isascii()
    assert not set(b"<>&\n\r\x00") & set(data[:-1])
    assert arguments(data) == [{text: [text]}]


def test_what_is_not_finite_has_no_number():
    assert plain([np.float32(0.1), math.nan, math.inf, np.int64(3), "a"]) == [0.1, None, None, 3, "a"]


def test_chunks_border_at_64_features(chunks):
    assert FEATURES_A_CHUNK == 64
    assert [chunk[:2] for chunk in chunks] == [["planted", 0], ["planted", 1], ["planted", 2]]
    assert [len(chunk[2]["features"]) for chunk in chunks] == [64, 64, 22]


def test_the_table_holds_the_bundles_columns(packed, bundle_path):
    columns = FeatureDictionary(bundle_path).features()
    table = arguments(packed.table())[2]
    for name in ("density", "max", "mean", "label_score"):
        found = np.frombuffer(base64.b64decode(table[name]), "<f4")
        np.testing.assert_array_equal(found, columns[name].astype(np.float32))
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(table["dead"]), "u1"), columns["dead"])
    assert table["labels"] == [label or "" for label in columns["label"]]


def slowly(bundle, first):
    """A chunk, written example by example from what the bundle says of each feature."""
    table, labels, boxes = bundle.features(), bundle.item_labels, bundle.sheets.boxes
    features = range(first, min(first + FEATURES_A_CHUNK, len(bundle)))
    shown = {feature: bundle.feature(feature) for feature in features}
    examples = [example for feature in features for example in shown[feature]]
    pieces = list(dict.fromkeys(piece for example in examples for piece in example["tokens"]))
    items = sorted({example["item"] for example in examples})
    entries = []
    for feature in features:
        used = np.flatnonzero(table["histogram"][feature])
        cut = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        entry = {
            "count": int(table["count"][feature]),
            "low": plain(table["min"][feature]),
            "high": plain(table["max"][feature]),
            "quantiles": [plain(value) for value in table["quantiles"][feature]],
            "histogram": table["histogram"][feature][cut].tolist(),
            "first": cut.start,
            "scale": shown[feature][0]["scale"] if shown[feature] else 0.0,
            "examples": [],
            "neighbours": [[n["kind"], n["other"], plain(n["value"])] for n in bundle.neighbours(feature)],
            "more": [],
        }
        for example in shown[feature]:
            numbers = [pieces.index(piece) for piece in example["tokens"]]
            entry["examples"].append(
                {name: example[name] for name in ("bin", "quantile", "item", "position")}
                | {
                    "activation": plain(example["activation"]),
                    "start": example["start"],
                    "window": base64.b64encode(bytes(example["window"])).decode(),
                    "tokens": base64.b64encode(np.array(numbers, "<u2").tobytes()).decode(),
                }
            )
        entries.append(entry)
    named = {str(item): labels[item] for item in items}
    pictures = {str(item): boxes[item] for item in items if item in boxes}
    return {"pieces": pieces, "wide": False, "items": named, "pictures": pictures, "features": entries}


@pytest.mark.parametrize("path", ["bundle_path", "signed_path", "grid_path", "pictures_path"])
def test_chunks_equal_those_written_example_by_example(path, request):
    bundle = FeatureDictionary(request.getfixturevalue(path))
    for number, chunk in enumerate(PackedBundle("it", bundle).chunks()):
        expected = script("unweave.receive", "it", number, slowly(bundle, number * FEATURES_A_CHUNK))
        assert chunk == expected


def test_pieces_that_16_bits_cannot_number_get_32(packed):
    group = next(packed.bundle.groups())
    spare = (1 << 16) - len(group.pieces)
    for more, kind in ((spare, "<u2"), (spare + 1, "<u4")):
        chunk = packed._chunk(replace(group, pieces=group.pieces + ["x"] * more))
        assert chunk["wide"] is (kind == "<u4")
        found = [base64.b64decode(example["tokens"]) for entry in chunk["features"] for example in entry["examples"]]
        np.testing.assert_array_equal(np.frombuffer(b"".join(found), kind), group.tokens.flat)


@pytest.mark.parametrize("feature", [0, 5, 63, 64, 149])
def test_a_feature_is_what_the_bundle_says(chunks, bundle_path, feature):
    bundle = FeatureDictionary(bundle_path)
    chunk = chunks[feature // 64][2]
    found = chunk["features"][feature % 64]
    histogram = bundle.features()["histogram"][feature]
    rebuilt = np.zeros_like(histogram)
    rebuilt[found["first"] : found["first"] + len(found["histogram"])] = found["histogram"]
    np.testing.assert_array_equal(rebuilt, histogram)
    neighbours = [[n["kind"], n["other"], pytest.approx(n["value"], rel=1e-5)] for n in bundle.neighbours(feature)]
    assert found["neighbours"] == neighbours
    examples = bundle.feature(feature)
    assert len(found["examples"]) == len(examples)
    for ours, theirs in zip(found["examples"], examples, strict=True):
        numbers = np.frombuffer(base64.b64decode(ours["tokens"]), "<u4" if chunk["wide"] else "<u2")
        assert [chunk["pieces"][n] for n in numbers] == theirs["tokens"]
        assert list(base64.b64decode(ours["window"])) == list(theirs["window"])
        assert [ours[k] for k in ("bin", "item", "position", "start")] == [
            theirs[k] for k in ("bin", "item", "position", "start")
        ]
        assert "kind" in chunk["items"][str(ours["item"])]
