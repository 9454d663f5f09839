import base64
import json
import math

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
