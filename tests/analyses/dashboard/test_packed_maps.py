import base64

import numpy as np
import pytest

from analyses.dashboard.packing import PackedBundle
from analyses.dictionary.bundle import FeatureDictionary
from analyses.dictionary.mapping import add_maps


def written(bundle):
    """What the page is given, before it is made a script."""
    packed = PackedBundle("b", bundle)
    maps, entries = bundle.map_groups(), []
    for group in bundle.groups():
        chunk = packed._chunk(group)
        if packed.maps is not None:
            packed.maps.lay(next(maps), group, chunk["features"])
        entries += chunk["features"]
    return packed.about(), entries


@pytest.mark.parametrize("name", ["texts", "pictures"])
def test_each_example_has_the_map_of_its_firing(mapped_paths, name):
    bundle = FeatureDictionary(mapped_paths[name])
    about, entries = written(bundle)
    geometry = bundle.manifest["maps"]["geometry"]
    given = 0
    assert (about["maps"]["method"], about["maps"]["site"]) == ("HiResCAM", "embed")
    assert about["maps"]["grid"] == geometry["grid"] == ([] if name == "texts" else [3, 5])
    for feature, entry in enumerate(entries):
        maps = bundle.maps(feature)
        assert ("map" in entry) == bool(maps)
        if maps:
            assert entry["map"]["signed"] == any((one < 0).any() for one in maps.values())
        for example, row in zip(entry["examples"], bundle.feature(feature), strict=True):
            whole = maps.get((row["item"], row["position"]))
            assert ("map" in example) == (whole is not None)
            if whole is None:
                continue
            given += 1
            steps = np.frombuffer(base64.b64decode(example["map"]), np.uint8).astype(float) - about["maps"]["zero"]
            shown = whole.ravel()
            if name == "texts":
                stop = row["start"] + len(row["window"])
                shown, hidden = whole[row["start"] : stop], np.delete(whole, np.s_[row["start"] : stop])
                assert ("beyond" in example) == bool(len(hidden))
                assert example.get("beyond", 0) == pytest.approx(hidden.sum(), abs=1e-4 * float(np.abs(whole).max()))
            np.testing.assert_allclose(steps * entry["map"]["scale"], shown, rtol=1e-5)
    assert given > 40


def test_without_maps_a_bundle_is_packed_as_before(bundle_path, mapped_bundles, tmp_path):
    about, entries = written(FeatureDictionary(bundle_path))
    assert "maps" not in about
    assert all("map" not in part for entry in entries for part in (entry, *entry["examples"]))
    case = mapped_bundles.image_case(tmp_path / "plain")
    before = [PackedBundle("b", case.bundle).table(), *PackedBundle("b", case.bundle).chunks()]
    add_maps(*case, progress=False)
    assert [PackedBundle("b", case.bundle).table(), *PackedBundle("b", case.bundle).chunks()] != before
    again = mapped_bundles.image_case(tmp_path / "again")
    assert [PackedBundle("b", again.bundle).table(), *PackedBundle("b", again.bundle).chunks()] == before
