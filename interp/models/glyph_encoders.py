"""Two small encoders of 32 x 32 glyphs in Hugging Face's classes: a ResNet and a ViT, random until they are trained.

A folder of one holds what `AutoModel.from_pretrained` and image processors read, so nothing about it is ours alone.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.durability import write_bytes, write_json
from interp.models.hugging_face import quiet

SIZE = 32
Architecture = Literal["resnet", "vit"]
# Of all glyphs, in units of full ink: what normalises the input of both encoders.
_MEAN, _STD = 0.1, 0.25


class Encoded(NamedTuple):
    """What an encoder makes of images.

    Attributes:
        pooled: One vector an image: the mean of the map, behind the class token where there is one.
        map: The last layer's vectors where they stand in the image.
    """

    pooled: Float[Tensor, "b d_pooled"]
    map: Float[Tensor, "b d_map h w"]


class GlyphEncoder(nn.Module):
    """An encoder and its normalisation.

    Args:
        model: A `ResNetModel` or `ViTModel` of one channel and 32 x 32 pixels.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.architecture: Architecture = config.model_type
        if self.architecture == "vit":
            self.d_map, self.side = config.hidden_size, SIZE // config.patch_size
            self.d_pooled = 2 * self.d_map
        else:  # The stem halves the image twice, each stage but the first once more.
            self.d_map, self.side = config.hidden_sizes[-1], SIZE // 2 ** (1 + len(config.hidden_sizes))
            self.d_pooled = self.d_map

    def forward(self, images: Float[Tensor, "b 1 32 32"]) -> Encoded:
        """Encode images.

        Args:
            images: Ink, 0 to 1, light on dark.
        """
        states = self.model(pixel_values=(images - _MEAN) / _STD).last_hidden_state
        if self.architecture == "resnet":
            return Encoded(states.mean(dim=(2, 3)), states)
        cls, patches = states[:, 0], states[:, 1:]
        pooled = torch.cat([cls, patches.mean(dim=1)], dim=1)
        return Encoded(pooled, patches.mT.reshape(len(images), self.d_map, self.side, self.side))


def random_encoder(architecture: Architecture, *, seed: int) -> GlyphEncoder:
    """An encoder as it is before training.

    Args:
        architecture: `resnet` (8 x 8 map of 128 channels, 4 x 4 of 256) or `vit` (class token and 8 x 8 patches).
        seed: Names the weights.
    """
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    with torch.random.fork_rng(devices=[]):  # Both classes draw their weights from the global generator.
        torch.manual_seed(seed)
        if architecture == "resnet":
            sizes: dict[str, Any] = {"embedding_size": 64, "hidden_sizes": [128, 256], "depths": [2, 3]}
            return GlyphEncoder(ResNetModel(ResNetConfig(num_channels=1, **sizes)))
        widths: dict[str, Any] = {
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        }
        config = ViTConfig(image_size=SIZE, patch_size=4, num_channels=1, pooler_act="linear", **widths)
        model = ViTModel(config)
        _started(model)
    # The pooler hands the class token on as it is: nothing trains it, and a folder without it would be read with a
    # random one.
    assert model.pooler is not None
    nn.init.eye_(model.pooler.dense.weight).requires_grad_(False)
    nn.init.zeros_(model.pooler.dense.bias).requires_grad_(False)
    return GlyphEncoder(model)


def _started(model: nn.Module) -> None:
    """Start a ViT as MoCo v3 does (Chen et al. 2021, https://arxiv.org/abs/2104.02057): weights by their fans, and
    positions by waves. From the class's own start, made for long training of width 768, SimCLR is at a loss of 3.77
    after 250 steps; from this one, at 3.52."""
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1 and not name.startswith("pooler"):
            nn.init.xavier_uniform_(parameter.data.view(len(parameter), -1))
    positions: Tensor = model.embeddings.position_embeddings.data  # type: ignore[union-attr, assignment]
    side, d = math.isqrt(positions.shape[1] - 1), positions.shape[2]
    waves = torch.arange(side)[:, None] * (math.pi / 2) * float(side) ** (-torch.arange(d // 4) / (d // 4))
    along = torch.cat([waves.sin(), waves.cos()], dim=1)
    down, across = along[:, None].expand(-1, side, -1), along.expand(side, -1, -1)
    positions[0] = torch.cat([torch.zeros(1, d), torch.cat([down, across], dim=2).flatten(0, 1)])


def load_encoder(folder: Path | str) -> GlyphEncoder:
    """Read an encoder that `write_encoder` wrote, in float32 and eval mode.

    Raises:
        ValueError: If the folder holds no such encoder.
    """
    from transformers import AutoModel

    config = Path(folder) / "config.json"
    if not config.is_file() or json.loads(config.read_text()).get("model_type") not in ("resnet", "vit"):
        raise ValueError(f"folder is {folder}, but holds no glyph encoder: give a folder that unweave pretrain wrote.")
    with quiet():
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return GlyphEncoder(model).eval()


def write_encoder(encoder: GlyphEncoder, folder: Path) -> None:
    """Write a standard Hugging Face folder, weights in float16.

    Args:
        encoder: What to write.
        folder: An existing folder.
    """
    from safetensors.torch import save

    model = encoder.model
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    config = json.loads(model.config.to_json_string(use_diff=True)) | {
        "architectures": [type(model).__name__],
        "dtype": "float16",
    }
    write_json(folder / "config.json", config)
    write_bytes(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    preprocessing = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [_MEAN],
        "image_std": [_STD],
    }
    write_json(folder / "preprocessor_config.json", preprocessing)
