"""A tiny encoder and a few glyphs, for objectives and the loop."""

import pytest


@pytest.fixture(scope="session")
def few_glyphs():
    from interp.data.glyphs import glyphs

    return glyphs("train")[:160]


@pytest.fixture
def tiny_encoder():
    """A function from an architecture to a small random encoder with the interface of the large ones."""
    import torch

    def make(architecture="resnet"):
        from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

        from interp.models.glyph_encoders import GlyphEncoder

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if architecture == "resnet":
                sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
                return GlyphEncoder(ResNetModel(ResNetConfig(num_channels=1, layer_type="basic", **sizes)))
            widths = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
            config = ViTConfig(image_size=32, patch_size=4, num_channels=1, **widths)
            return GlyphEncoder(ViTModel(config, add_pooling_layer=False))

    return make
