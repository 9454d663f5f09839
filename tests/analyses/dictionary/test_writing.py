import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from analyses.dictionary.bundle import FeatureDictionary
from interp.stores.memory import MemoryStore
from interp.types import Activations, Geometry


def test_images_show_their_whole_grid(planted, tmp_path):
    positions = 1 + 3 * 4
    values = torch.randint(-3, 4, (20 * positions, 6), generator=torch.Generator().manual_seed(0)).float()
    example, position = torch.arange(20).repeat_interleave(positions), torch.arange(positions).repeat(20)
    store = MemoryStore(Activations(values, example, position), geometry=Geometry("grid", (3, 4), prefix=1))
    directions = planted()
    bundle = FeatureDictionary.build(directions, store, tmp_path / "dict", progress=False)
    codes = directions.encode(values).dense().numpy()
    seen = 0
    for f in range(directions.d_sae):
        for e in bundle.feature(f):
            true = codes[e["item"] * positions : (e["item"] + 1) * positions, f]
            np.testing.assert_allclose(np.array(e["window"]) * e["scale"], true, atol=e["scale"] * 0.501)
            assert e["start"] == 0 and e["tokens"] == []
            seen += 1
    assert seen > 100 and bundle.manifest["geometry"]["grid"] == [3, 4]


def test_tokens_may_be_given_apart(planted, store, tmp_path):
    tokens = [[piece.upper() for piece in item.pieces] for item in store.items]
    bundle = FeatureDictionary.build(planted(), store, tmp_path / "dict", tokens=tokens, progress=False)
    example = bundle.feature(0)[0]
    assert example["tokens"] == tokens[example["item"]][example["start"] :][: len(example["tokens"])]
    with pytest.raises(ValueError, match="tokens has 1 entries for 60 examples"):
        FeatureDictionary.build(planted(), store, tmp_path / "other", tokens=[[]], progress=False)
    with pytest.raises(ValueError, match=r"example 0 has 1 pieces, but rows up to position \d+: give a piece"):
        FeatureDictionary.build(planted(), store, tmp_path / "other", tokens=[["a"]] * 60, progress=False)
    with pytest.raises(ValueError, match=rf"example 3 has {len(tokens[3]) - 1} pieces, but rows up to"):
        short = [*tokens[:3], tokens[3][:-1], *tokens[4:]]
        FeatureDictionary.build(planted(), store, tmp_path / "other", tokens=short, progress=False)


def test_windows_reach_to_the_last_piece_or_else_to_the_last_row(planted, store, tmp_path):
    """Odd items have no text, even ones have two more pieces than rows, as for a closing special token."""
    lengths = [int(store.example(i).position.max()) + 1 if len(store.example(i)) else 0 for i in range(60)]
    tokens = [[] if i % 2 else ["x"] * (n + 2) for i, n in enumerate(lengths)]
    bundle = FeatureDictionary.build(planted(), store, tmp_path / "dict", tokens=tokens, progress=False)
    reached = set()
    for example in (example for feature in range(70) for example in bundle.feature(feature)):
        item = example["item"]
        stop = min(example["position"] + 25, lengths[item] + (0 if item % 2 else 2))
        assert example["start"] + len(example["window"]) == stop
        assert example["tokens"] == ([] if item % 2 else ["x"] * len(example["window"]))
        reached.add((item % 2, stop < example["position"] + 25))
    assert len(reached) == 4


def test_decoder_goes_along_when_asked(planted, store, tmp_path):
    directions = planted()
    bundle = FeatureDictionary.build(directions, store, tmp_path / "dict", save_decoder=True, progress=False)
    assert torch.equal(load_file(bundle.path / "tensors.safetensors")["W_dec"], directions.W_dec)


def test_a_bundle_whose_features_never_fire_is_whole(planted, store, tmp_path):
    bundle = FeatureDictionary.build(planted(threshold=1e6), store, tmp_path / "dict", progress=False)
    assert bundle.features()["dead"].all() and bundle.manifest["counts"]["firings"] == 0
    assert all(bundle.feature(f) == [] for f in range(70))
    assert {n["kind"] for n in bundle.neighbours(0)} == {"decoder", "encoder"}
    assert len(bundle.items()["id"]) == 0
