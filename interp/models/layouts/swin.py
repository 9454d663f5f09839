"""Swin Transformer (Liu et al. 2021, https://arxiv.org/abs/2103.14030), as Hugging Face builds it.

`stages.i.blocks.j` as in a ResNet, and inside a block the names of a transformer's. Queries, keys, values and heads
have none: they stand in shifted windows, padded to whole ones, and not in the image. `.attn` is what attention adds
once it is back there.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from interp.models.layouts.base import Layout, Size, found, own_names, pair
from interp.models.layouts.blocks import SIDES
from interp.types import Geometry, Place, Site

_PATCHES, _STAGES = ("embeddings.patch_embeddings",), ("encoder.layers",)
_INSIDE = {
    "": "",
    ".ln1": "layernorm_before",
    ".ln2": "layernorm_after",
    ".mlp": "mlp",
    ".mlp.in": "mlp.fc1",
    ".mlp.out": "mlp.fc2",
}
_ALIASES = {
    "hook_resid_pre": "@in",
    "hook_resid_mid": ".ln2@in",
    "hook_resid_post": "",
    "hook_attn_out": ".attn",
    "hook_mlp_in": ".mlp.in@in",
    "hook_mlp_out": ".mlp.out",
    "mlp.hook_pre": ".mlp.in",
    "mlp.hook_post": ".mlp.out@in",
}


def swin_layout(module: nn.Module) -> Layout | None:
    """The layout of a Swin Transformer, with a head around it or none; None for anything else."""
    body: Any = next((part for part in module.modules() if found(part, _PATCHES) and found(part, _STAGES)), None)
    stages: Any = body and found(body, _STAGES)
    if not stages or not all(hasattr(stage, "blocks") for stage in stages):
        return None
    blocks = [block for stage in stages for block in stage.blocks]
    if not all(found(block, [path]) for block in blocks for path in (*_INSIDE.values(), "attention.q_proj")):
        return None  # Swin V2 norms elsewhere
    parts = {"embed": Place(body.embeddings), "ln_final": Place(body.layernorm)}
    depths, aliases = {"embed": 0, "ln_final": len(stages) - 1}, {"hook_embed": "embed"}
    for i, stage in enumerate(stages):
        for j, block in enumerate(stage.blocks):
            name = f"stages.{i}.blocks.{j}"
            inside = {
                f"{name}{part}{side}": Place(block.get_submodule(path), io)
                for part, path in _INSIDE.items()
                for side, io in SIDES
            }
            # Stochastic depth, which is nothing outside of training, is where attention is handed back.
            inside[f"{name}.attn"] = Place(block.drop_path)
            parts, depths = parts | inside, depths | dict.fromkeys(inside, i)
            aliases |= {f"{name}.{alias}": f"{name}{part}" for alias, part in _ALIASES.items()}
            aliases[f"stages.{i}"] = name
        if stage.downsample is not None:
            parts[f"stages.{i}.downsample"], depths[f"stages.{i}.downsample"] = Place(stage.downsample), i + 1
    return Layout(
        body=body,
        parts=parts,
        aliases=own_names(module, parts) | aliases,
        input_size=pair(body.config.image_size),
        geometry=_Geometries(pair(body.config.patch_size), depths),
        pooled=lambda hidden: hidden.mean(dim=1),
        running=lambda: _windows_kept(blocks),
    )


class _Geometries:
    """How positions lie in images of a size: patches, and after each stage four of them in one."""

    def __init__(self, patch: Size, depths: dict[str, int]) -> None:
        self._patch, self._depths = patch, depths

    def __call__(self, site: Site, size: Size) -> Geometry:
        if ".attention" in site.module:
            raise ValueError(
                f"site is {site}, whose rows stand in shifted windows and not in the image: read what attention is "
                "given, stages.i.blocks.j.ln1, or what it adds, stages.i.blocks.j.attn."
            )
        depth = self._depths.get(str(site))
        if depth is None:
            return Geometry()
        # Edges that do not fill a patch are padded, on the right and below.
        height, width = (-(-along // patch) for along, patch in zip(size, self._patch, strict=True))
        for _ in range(depth):
            height, width = (height + 1) // 2, (width + 1) // 2
        stride = (self._patch[0] << depth, self._patch[1] << depth)
        return Geometry("grid", (height, width), stride=stride, patch=stride, input_size=size)


@contextlib.contextmanager
def _windows_kept(blocks: list[Any]) -> Iterator[None]:
    """Put back the windows' sizes: a block shrinks its own, for good, when it is given an image smaller than they."""
    kept = [(block, block.window_size, block.shift_size) for block in blocks]
    try:
        yield
    finally:
        for block, window, shift in kept:
            block.window_size, block.shift_size = window, shift
