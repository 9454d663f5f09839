import errno
import json

import numpy as np
import pytest
import torch

from analyses.attributing import attribute
from analyses.attribution.occlusion import Occlusion
from analyses.dictionary import mapping
from analyses.dictionary.bundle import FeatureDictionary
from analyses.dictionary.mapping import add_maps
from analyses.scores.latent import Latent
from interp.preprocessing import Fitted
from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.topk import TopK


@pytest.fixture
def texts(mapped_bundles, tmp_path):
    return mapped_bundles.text_case(tmp_path / "texts")


@pytest.fixture
def images(mapped_bundles, tmp_path):
    return mapped_bundles.image_case(tmp_path / "images")


def by_hand(case, example, feature, method, site):
    """The map and the activation of one firing, alone."""
    item = case.store.items[example["item"]]
    inputs = case.model.collate([Fitted(item.image) if item.tokens is None else item.tokens])
    score = Latent(case.directions.eval(), feature, over=example["position"])
    maps = attribute(case.model, inputs, site, score=score, methods=[method])
    return next(iter(maps.values.values()))[0].numpy(), float(maps.scores)


def check(case, method, site, shown=lambda example: True):
    """Every map of the bundle against one made by hand; returns how many there are."""
    number = 0
    for feature in range(len(case.bundle)):
        examples = [e for e in case.bundle.feature(feature) if shown(e)]
        found, mapped = case.bundle.maps(feature), {}
        for example in examples:
            key = example["item"], example["position"]
            if key in found:
                mapped[key], score = by_hand(case, example, feature, method, site)
                assert score == pytest.approx(example["activation"], rel=0.01)  # rows are kept in bfloat16
        assert found.keys() == mapped.keys()
        step = max((np.abs(one).max() for one in mapped.values()), default=0) / 127
        for key, one in mapped.items():
            assert found[key].shape == one.shape
            assert np.abs(found[key] - one).max() <= 0.501 * step
        number += len(found)
    assert number == case.bundle.manifest["maps"]["mapped"] > 30
    return number


def top_of(n):
    return lambda example: example["bin"] == "top" and example["rank"] < n


def test_maps_of_texts_equal_those_made_one_by_one(texts):
    add_maps(*texts, method="HiResCAM", top=3, batch_size=7, progress=False)
    number = check(texts, "HiResCAM", "embed", top_of(3))
    about = texts.bundle.manifest["maps"]
    assert about["asked"] == {"method": "HiResCAM", "site": "embed", "top": 3, "side": 32}
    firings = sum(sum(map(top_of(3), texts.bundle.feature(f))) for f in range(len(texts.bundle)))
    assert number + about["silent"] == firings
    # A causal model: nothing comes from later tokens, and something from earlier ones.
    earlier = 0
    for feature in range(len(texts.bundle)):
        for (_, position), one in texts.bundle.maps(feature).items():
            assert not one[position + 1 :].any()
            earlier += np.abs(one[:position]).sum()
    assert earlier > 0


@pytest.mark.parametrize("method", ["NormGrad", Occlusion(window=1, stride=1)], ids=["local", "whole"])
def test_maps_of_pictures_equal_those_made_one_by_one(images, method):
    """The class token fires too; it has no place on a map, but maps."""
    add_maps(*images, method=method, top=None, progress=False)
    check(images, method, "embed")


def test_maps_of_pixels_are_added_up_to_the_size_asked_for(images):
    add_maps(*images, method="HiResCAM", site="input", side=6, top=2, progress=False)
    geometry = images.bundle.manifest["maps"]["geometry"]
    assert (geometry["grid"], geometry["stride"], geometry["input_size"]) == ([6, 5], [2, 4], [12, 20])
    example = images.bundle.feature(feature := int(np.argmax(images.bundle.features()["count"])))[0]
    pixels, _ = by_hand(images, example, feature, "HiResCAM", "input")
    expected = pixels.reshape(6, 2, 5, 4).sum((1, 3))
    found = images.bundle.maps(feature)[example["item"], example["position"]]
    assert np.abs(found - expected).max() <= 0.011 * np.abs(expected).max() + 1e-6


def test_a_dataset_stands_in_for_smaller_thumbnails(mapped_bundles, images, tmp_path):
    small = mapped_bundles.image_case(tmp_path / "small", thumbnails=5)
    with pytest.raises(
        ValueError, match=r"a thumbnail of 3 x 5 of item \d+, but the model is given a picture of 12 x 20"
    ):
        add_maps(*small, progress=False)
    assert not small.bundle.has_maps and not list(small.bundle.path.glob("maps-*"))
    add_maps(*small, dataset=small.dataset, progress=False)
    add_maps(*images, progress=False)
    for feature in range(len(images.bundle)):
        ours, theirs = small.bundle.maps(feature), images.bundle.maps(feature)
        assert ours.keys() == theirs.keys()
        for key, one in ours.items():
            np.testing.assert_array_equal(one, theirs[key])
    with pytest.raises(ValueError, match="differ by .* when the model runs again: give the model, the store and the"):
        add_maps(*small, dataset=small.dataset[::-1], site="input", progress=False)


def test_equal_calls_give_equal_bytes_and_others_replace_what_was_there(mapped_bundles, texts, tmp_path, contents):
    before = contents(texts.bundle.path)
    add_maps(*texts, progress=False)
    first = contents(texts.bundle.path)
    assert {name: first[name] for name in before if name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    again = mapped_bundles.text_case(tmp_path / "again")
    add_maps(*again, progress=False)
    assert contents(again.bundle.path) == first
    stamp = (texts.bundle.path / texts.bundle.manifest["maps"]["file"]).stat().st_mtime_ns
    add_maps(*texts, progress=False)
    assert (texts.bundle.path / texts.bundle.manifest["maps"]["file"]).stat().st_mtime_ns == stamp
    add_maps(*texts, method="Gradient", progress=False)
    assert sorted(contents(texts.bundle.path)) != sorted(first) and len(contents(texts.bundle.path)) == len(first)
    assert FeatureDictionary(texts.bundle.path).manifest["maps"]["asked"]["method"] == "Gradient"
    opened = FeatureDictionary.build(
        texts.directions,
        texts.store,
        texts.bundle.path,
        top=4,
        random=2,
        quantiles=(2, 1),
        window=(4, 3),
        progress=False,
    )
    assert opened.has_maps


@pytest.mark.parametrize("where", ["maps", "table", "manifest"])
def test_what_ends_it_in_the_middle_leaves_the_old_bundle(texts, monkeypatch, contents, where):
    add_maps(*texts, progress=False)
    before, manifest, maps = contents(texts.bundle.path), texts.bundle.manifest, texts.bundle.maps(0)
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2 or where != "maps":
            raise OSError(errno.ENOSPC, "no space")
        return real(*arguments, **options)

    owner, name = {
        "maps": (mapping.Mapper, "maps"),
        "table": (mapping.tables, "table_of"),
        "manifest": (mapping, "write_json"),
    }[where]
    real = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(OSError, match="no space|could not write"):
            add_maps(*texts, method="Gradient", progress=False)
    after = contents(texts.bundle.path)
    assert before.items() <= after.items()
    assert texts.bundle.manifest == manifest == json.loads(after["manifest.json"])
    found = FeatureDictionary(texts.bundle.path).maps(0)
    assert all((found[key] == one).all() for key, one in maps.items())
    # What a kill has left goes with the next success.
    (texts.bundle.path / "maps-000.parquet.partial").write_bytes(b"cut")
    add_maps(*texts, method="Gradient", progress=False)
    assert len(list(texts.bundle.path.glob("maps-*"))) == 1
    check(texts, "Gradient", "embed", top_of(8))


def test_a_firing_that_does_not_come_again_has_no_map(texts):
    """Rows 4 % larger than the model's own: what fires on them by less than that is silent now."""
    rows = texts.store.span(0, len(texts.store))
    larger = MemoryStore(
        Activations(rows.values * 1.04, rows.example, rows.position),
        items=texts.store.items,
        site=texts.store.site,
        geometry=texts.store.geometry,
    )
    directions = Above(rows.values)
    bundle = FeatureDictionary.build(directions, larger, texts.bundle.path.with_name("larger"), top=30, progress=False)
    add_maps(bundle, texts.model, directions, larger, top=None, batch_size=2, progress=False)
    about = bundle.manifest["maps"]
    firings = {(f, e["item"], e["position"]) for f in range(8) for e in bundle.feature(f)}
    silent = {
        (f, e["item"], e["position"])
        for f in range(8)
        for e in bundle.feature(f)
        if e["activation"] < 1.039 * directions.bars[f]
    }
    mapped = {(f, *key) for f in range(8) for key in bundle.maps(f)}
    assert about["mapped"] == len(mapped) and about["silent"] == len(firings - mapped) > 0
    assert silent and not silent & mapped


class Above:
    """The raw channels, where they are above their 90 % quantile."""

    d_in = d_sae = 8
    signed = trainable = False
    site, labels, provenance, arguments, W_enc = None, {}, {}, {}, None

    def decode(self, latents):
        return latents.dense()

    def __init__(self, values):
        self.bars = values.quantile(0.9, dim=0)
        self.W_dec = torch.eye(8)

    def encode(self, x):
        from interp.types import Latents

        return Latents.from_dense(torch.where(x > self.bars, x, 0.0))


def test_dead_features_and_the_model_are_left_as_they_are(texts):
    model, directions = texts.model, texts.directions
    model.module.train()
    directions.train()
    add_maps(*texts, progress=False)
    assert model.module.training and directions.training
    assert all(p.grad is None and p.requires_grad for p in [*model.module.parameters(), *directions.parameters()])
    dead = np.flatnonzero(texts.bundle.features()["dead"])
    assert len(dead) and all(texts.bundle.maps(int(f)) == {} for f in dead)


def test_refusals_name_the_way_out(texts, images, contents):
    before = contents(texts.bundle.path)
    bundle, model, directions, store = texts

    def add(*case, **options):
        return add_maps(*(case or texts), progress=False, **options)

    with pytest.raises(ValueError, match="methods names 'HiRes', but known are"):
        add(method="HiRes")
    with pytest.raises(
        ValueError, match="method is EigenCAM, which looks at no score, so that all features would have"
    ):
        add(method="EigenCAM")
    with pytest.raises(ValueError, match="site is 'emb', but tiny-text has no such place; the nearest are embed"):
        add(site="emb")
    with pytest.raises(ValueError, match="the score has no gradient at head in any example"):
        add(site="head")
    with pytest.raises(ValueError, match=r"all maps at head are 0, but features are read at blocks.1: choose a site"):
        add(site="head", method="Occlusion")
    for number in ("top", "side", "batch_size"):
        with pytest.raises(ValueError, match="top is .* side .* and batch_size .*, but each is at least 1: give more"):
            add(**{number: 0})
    other = TopK(d_in=8, d_sae=70, k=3, seed=2)
    with pytest.raises(ValueError, match=r"directions is not what .*texts was made from: give that, or build"):
        add(bundle, model, other, store)
    with pytest.raises(ValueError, match="store is not what"):
        add(bundle, model, directions, images.store)
    with pytest.raises(ValueError, match="model is not what"):
        add(bundle, type(model)(seed=1), directions, store)
    assert contents(texts.bundle.path) == before and not bundle.has_maps and bundle.maps(0) == {}
    with pytest.raises(IndexError, match="feature is 70"):
        bundle.maps(70)
