"""The encoders inside the package do what docs/encoders.md says, on a sample."""

import pytest
import torch

from interp.data.glyphs import glyphs
from interp.models.glyph_encoders import load_encoder, random_encoder
from interp.pretrain.judging import Judge
from interp.pretrain.packaged import NAMES, packaged
from interp.pretrain.views import as_input


@pytest.fixture(scope="module")
def judge():
    return Judge(glyphs("train")[:200], glyphs("held_out")[:250])


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_small_and_of_half_precision(name):
    from safetensors.torch import load_file

    folder = packaged(name)
    assert (folder / "model.safetensors").stat().st_size <= 3_000_000
    weights = load_file(folder / "model.safetensors").values()
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float16}


@pytest.mark.parametrize("name", NAMES)
def test_moved_glyphs_are_found_in_other_fonts_better_than_by_random_weights(name, judge):
    encoder = load_encoder(packaged(name))
    base = judge.settled(random_encoder(encoder.architecture, seed=0))
    found, before = (judge._retrieved(*_embedded(judge, model))[0].mean() for model in (encoder, base))
    assert found > before + 0.3


def _embedded(judge, encoder):
    with torch.no_grad():
        return encoder(judge._queries).pooled, encoder(judge._images[1]).pooled


@pytest.mark.parametrize("name", NAMES)
def test_the_model_of_the_name_computes_what_the_encoder_computes(name):
    from interp.loading import load_model

    model, encoder = load_model(name), load_encoder(packaged(name))
    rows = glyphs("held_out")[:3]
    with torch.no_grad():
        hidden = model.forward(model.collate([row["image"] for row in rows])).hidden
        maps = encoder(as_input(rows.images)).map
    if hidden.ndim == 3:
        hidden = hidden[:, 1:].mT.reshape(maps.shape)
    assert model.name == name
    torch.testing.assert_close(hidden, maps, rtol=1e-4, atol=1e-4)


def test_other_names_are_not_ours():
    assert packaged("bert") is None
