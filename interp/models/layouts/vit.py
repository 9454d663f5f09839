"""Vision transformers of one resolution: ViT, DeiT, DINOv2, DINOv3, ViTMAE, BEiT, CLIP, SigLIP and their kin.

Parts have the names that TransformerLens gives them. Hugging Face spells each in two or three ways: the tables below
say which, tried from the left.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from interp.models.layouts.base import Layout, Size, found, own_names, pair
from interp.models.layouts.blocks import SIDES, block_parts, hook_names
from interp.types import Geometry, Place, Site

_PATCHES = ("embeddings.patch_embeddings", "embeddings.patch_embedding")
_BLOCKS = ("layers", "encoder.layers", "encoder.layer", "model.layer")
_AROUND = {
    "embed": ("embeddings",),
    "embed_ln": ("pre_layrnorm",),
    "ln_final": ("layernorm", "norm", "post_layernorm"),
}
_INSIDE = {
    "": ("",),
    ".ln1": ("layernorm_before", "norm1", "layer_norm1"),
    ".attn": ("attention", "self_attn"),
    ".attn.q": ("attention.q_proj", "self_attn.q_proj", "attention.attention.query"),
    ".attn.k": ("attention.k_proj", "self_attn.k_proj", "attention.attention.key"),
    ".attn.v": ("attention.v_proj", "self_attn.v_proj", "attention.attention.value"),
    ".attn.o": ("attention.o_proj", "self_attn.out_proj", "attention.output.dense"),
    ".ln2": ("layernorm_after", "norm2", "layer_norm2"),
    ".mlp": ("mlp",),
    ".mlp.gate": ("mlp.gate_proj",),
    ".mlp.in": ("mlp.fc1", "mlp.up_proj", "intermediate.dense"),
    ".mlp.out": ("mlp.fc2", "mlp.down_proj", "output.dense"),
}
_NEEDED = _INSIDE.keys() - {".mlp", ".mlp.gate"}
_PREFIXES = ("cls_token", "class_embedding", "distillation_token", "register_tokens")


def vit_layout(module: nn.Module) -> Layout | None:
    """The layout of a vision transformer, with a head around it or none; None for anything else."""
    body: Any = next((part for part in module.modules() if _cuts_patches(part) and found(part, _BLOCKS)), None)
    blocks: Any = body and found(body, _BLOCKS)
    if not blocks or not all(found(block, _INSIDE[part]) for block in blocks for part in _NEEDED):
        return None
    parts, aliases = _around(body)
    for i, block in enumerate(blocks):
        modules = {part: inner for part, names in _INSIDE.items() if (inner := found(block, names))}
        inside, names = block_parts(f"blocks.{i}", modules, body.config.num_attention_heads)
        parts, aliases = parts | inside, aliases | names
    prefix = _prefix(body.embeddings)
    return Layout(
        body=body,
        parts=parts,
        aliases=own_names(module, parts) | aliases,
        input_size=pair(body.config.image_size),
        geometry=_Geometries(module, body, prefix),
        pooled=(lambda hidden: hidden[:, 0]) if prefix else (lambda hidden: hidden.mean(dim=1)),
        running=lambda: _unmasked(body.config),
    )


def _cuts_patches(module: nn.Module) -> bool:
    patches = found(module, _PATCHES)
    return patches is not None and any(isinstance(part, nn.Conv2d) for part in patches.modules())


def _around(body: nn.Module) -> tuple[dict[str, Place], dict[str, str]]:
    modules = {name: part for name, names in _AROUND.items() if (part := found(body, names))}
    parts = {name + side: Place(part, io) for name, part in modules.items() for side, io in SIDES}
    del parts["embed@in"]  # the image itself
    return parts, {"hook_embed": "embed"} | hook_names(parts)


def _prefix(embeddings: nn.Module) -> int:
    """Tokens before the patches, counted by the parameters that they are made from."""
    tokens = [token for name in _PREFIXES if isinstance(token := getattr(embeddings, name, None), Tensor)]
    return sum(token.shape[-2] if token.ndim > 1 else 1 for token in tokens)


@contextlib.contextmanager
def _unmasked(config: Any) -> Iterator[None]:
    """Without the random masking of ViTMAE, of which the config alone says how much."""
    ratio = getattr(config, "mask_ratio", None)
    if ratio is None:
        yield
        return
    config.mask_ratio = 0.0
    try:
        yield
    finally:
        config.mask_ratio = ratio


class _Geometries:
    """How the positions of a site lie in images of a size: from the embedding to the final norm all keep them."""

    def __init__(self, module: nn.Module, body: Any, prefix: int) -> None:
        self._patch, self._prefix = pair(body.config.patch_size), prefix
        self._modules = dict(module.named_modules())
        paths = {part: path for path, part in self._modules.items()}
        self._patches = paths[found(body, _PATCHES)]
        self._within = tuple(f"{paths[found(body, names)]}." for names in (_BLOCKS, _AROUND["embed"]))
        # CLIP's last norm is given the class token alone.
        self._pooled = ("ln_final",) if found(body, _AROUND["embed_ln"]) else ()

    def __call__(self, site: Site, size: Size) -> Geometry:
        if site.module in self._modules:
            return self._of_path(site, size)
        if site.module in self._pooled or site.module.endswith(".hook_pattern"):
            return Geometry()
        return self._grid(size, self._prefix)

    def _of_path(self, site: Site, size: Size) -> Geometry:
        """Of a module that has no other name: the convolution that cuts patches, a dropout, a layer scale."""
        convolves = isinstance(self._modules[site.module], nn.Conv2d)
        if convolves or site.module == self._patches:
            first = Geometry() if site.io == "in" else self._grid(size, 0)
            return replace(first, channels="first") if convolves else first
        kept = site.module.startswith(self._within) and not site.index
        return self._grid(size, self._prefix) if kept else Geometry()

    def _grid(self, size: Size, prefix: int) -> Geometry:
        (height, width), (down, across) = size, self._patch
        grid = (height // down, width // across)
        return Geometry("grid", grid, prefix, stride=self._patch, patch=self._patch, input_size=size)
