"""ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545) and ConvNeXt V2, as Hugging Face builds them.

Named as a ResNet is: `stages.i.blocks.j`, and `stages.i` for the last block of a stage. The MLP of a block has the
names of a transformer's, `.mlp.in` and `.mlp.out`.
"""

from typing import Any

from torch import nn

from interp.models.layouts.base import Layout, found, own_names, pair
from interp.models.layouts.blocks import SIDES
from interp.models.layouts.convolutions import Map, geometry_of
from interp.types import Place

_STEM, _STAGES = ("embeddings.patch_embeddings",), ("encoder.stages",)


def convnext_layout(module: nn.Module) -> Layout | None:
    """The layout of a ConvNeXt, with a head around it or none; None for anything else."""
    body: Any = next((part for part in module.modules() if found(part, _STEM) and found(part, _STAGES)), None)
    stages: Any = body and found(body, _STAGES)
    if not stages or not all(hasattr(block, "dwconv") for stage in stages for block in stage.layers):
        return None
    here = Map(()).after(body.embeddings)
    parts, maps = {"embed": Place(body.embeddings), "ln_final": Place(body.layernorm)}, {"embed": here}
    aliases = {"hook_embed": "embed"}
    for i, stage in enumerate(stages):
        if len(stage.downsampling_layer):
            here = here.after(stage.downsampling_layer)
            parts[f"stages.{i}.downsample"], maps[f"stages.{i}.downsample"] = Place(stage.downsampling_layer[-1]), here
        for j, block in enumerate(stage.layers):
            name = f"stages.{i}.blocks.{j}"
            outer = {name: Place(block), f"{name}@in": Place(block, "in"), f"{name}.conv": Place(block.dwconv)}
            inner = {f"{name}.ln": Place(block.layernorm)}
            for part, linear in (("in", block.pwconv1), ("out", block.pwconv2)):
                inner |= {f"{name}.mlp.{part}{side}": Place(linear, io) for side, io in SIDES}
            parts |= outer | inner
            # The depthwise convolution keeps the centre where it is; what comes after it has its channels last.
            maps |= dict.fromkeys(outer, here) | dict.fromkeys(inner, here._replace(channels="last"))
            aliases |= {f"stages.{i}": name, f"{name}.mlp.hook_pre": f"{name}.mlp.in"}
            aliases[f"{name}.mlp.hook_post"] = f"{name}.mlp.out@in"
    return Layout(
        body=body,
        parts=parts,
        aliases=own_names(module, parts) | aliases,
        input_size=pair(body.config.image_size),
        geometry=geometry_of(maps),
        pooled=lambda hidden: hidden.mean(dim=(2, 3)),
    )
