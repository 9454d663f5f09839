"""ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) and RegNet, as Hugging Face builds them.

`stages.i.blocks.j` is a residual block and `stages.i` the last one of its stage: timm's names for ConvNeXt's, used for
all models of maps. Hugging Face says `encoder.stages.i.layers.j` here and torchvision `layer1.0`.
"""

from typing import Any

from torch import nn

from interp.models.layouts.base import Layout, found, own_names
from interp.models.layouts.convolutions import Map, geometry_of
from interp.types import Place

_SIZE = (224, 224)  # of ImageNet's pictures: the config names none
_STEM, _STAGES = ("embedder.embedder",), ("encoder.stages",)


def resnet_layout(module: nn.Module) -> Layout | None:
    """The layout of a ResNet or RegNet, with a head around it or none; None for anything else."""
    body: Any = next((part for part in module.modules() if found(part, _STEM) and found(part, _STAGES)), None)
    stages: Any = body and found(body, _STAGES)
    if not stages or not all(hasattr(block, "layer") for stage in stages for block in stage.layers):
        return None
    here = Map(()).after(body.embedder)
    parts, maps, aliases = {"embed": Place(body.embedder)}, {"embed": here}, {"hook_embed": "embed"}
    for i, stage in enumerate(stages):
        for j, block in enumerate(stage.layers):
            name = f"stages.{i}.blocks.{j}"
            parts |= {f"{name}@in": Place(block, "in"), name: Place(block)}
            maps[f"{name}@in"] = here
            # What a RegNet puts between its convolutions, a weight a channel, moves no position.
            for k, layer in enumerate(part for part in block.layer if hasattr(part, "convolution")):
                here = here.after(layer)
                parts[f"{name}.conv.{k}"], maps[f"{name}.conv.{k}"] = Place(layer), here
            maps[name] = here
            aliases[f"stages.{i}"] = name
    return Layout(
        body=body,
        parts=parts,
        aliases=own_names(module, parts) | aliases,
        input_size=_SIZE,
        geometry=geometry_of(maps),
        pooled=lambda hidden: hidden.mean(dim=(2, 3)),
    )
