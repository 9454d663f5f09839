import json

import pytest
import torch

from interp.models.glyph_encoders import load_encoder, random_encoder, write_encoder


def _images(b=2):
    return torch.rand(b, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
def test_weights_are_a_function_of_the_seed_and_few(architecture):
    encoder = random_encoder(architecture, seed=0)
    torch.manual_seed(7)
    again, other = random_encoder(architecture, seed=0), random_encoder(architecture, seed=1)
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (encoder, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert len(weights[0]) < 1_400_000
    pooled, maps = encoder.eval()(_images())
    assert pooled.shape == (2, encoder.d_pooled)
    assert maps.shape == (2, encoder.d_map, encoder.side, encoder.side)


@pytest.mark.parametrize(("architecture", "off"), [("resnet", 1), ("vit", 0)])
def test_a_patch_of_ink_lights_its_own_place_of_the_map(architecture, off):
    """A ResNet's vectors overlap, so that the neighbour of a border may win."""
    encoder = random_encoder(architecture, seed=0).eval()
    cell, last = 32 // encoder.side, encoder.side - 1
    with torch.no_grad():
        blank = encoder(torch.zeros(1, 1, 32, 32)).map[0]
        for row, column in ((0, 1), (0, last), (last, 0)):
            image = torch.zeros(1, 1, 32, 32)
            image[..., cell * row : cell * (row + 1), cell * column : cell * (column + 1)] = 1
            moved = (encoder(image).map[0] - blank).norm(dim=0)
            found = divmod(int(moved.argmax()), encoder.side)
            assert max(abs(found[0] - row), abs(found[1] - column)) <= off


def test_the_pooled_vector_of_a_vit_is_class_token_and_mean_patch():
    encoder = random_encoder("vit", seed=0).eval()
    output = encoder.model(pixel_values=(_images() - 0.1) / 0.25)
    pooled, maps = encoder(_images())
    torch.testing.assert_close(pooled[:, : encoder.d_map], output.pooler_output)
    torch.testing.assert_close(pooled[:, encoder.d_map :], maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
def test_a_folder_is_a_standard_one(architecture, tmp_path):
    from transformers import AutoModel

    encoder = random_encoder(architecture, seed=0).eval()
    write_encoder(encoder, tmp_path)
    model, report = AutoModel.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, encoder.model.state_dict()[name].to(torch.float16).to(value.dtype))
    again = load_encoder(tmp_path)
    assert (again.architecture, again.d_pooled, again.side) == (encoder.architecture, encoder.d_pooled, encoder.side)
    torch.testing.assert_close(again(_images()).pooled, encoder(_images()).pooled, rtol=0.02, atol=0.02)


def test_a_model_reads_pixels_as_the_encoder_does(tmp_path):
    """`preprocessor_config.json` says what `GlyphEncoder` does to its images."""
    import numpy as np

    from interp.loading import load_model

    encoder = random_encoder("vit", seed=0).eval()
    write_encoder(encoder, tmp_path)
    image = np.random.default_rng(0).integers(256, size=(32, 32)).astype(np.uint8)
    prepared = load_model(tmp_path).preprocessing([image])
    expected = (torch.from_numpy(image).float() / 255 - 0.1) / 0.25
    torch.testing.assert_close(torch.as_tensor(prepared).reshape(32, 32), expected)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="holds no glyph encoder: give a folder that unweave pretrain wrote"):
        load_encoder(tmp_path)
