"""Vision transformers built like timm's, whose queries, keys and values come from one layer."""

from typing import Any

import torch
from torch import Tensor, nn

from interp.models.layouts.base import found, own_names, pair
from interp.models.layouts.blocks import SIDES, block_parts, hook_names
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Place, Site

_INSIDE = {
    "": "",
    ".ln1": "norm1",
    ".attn": "attn",
    ".attn.o": "attn.proj",
    ".ln2": "norm2",
    ".mlp": "mlp",
    ".mlp.in": "mlp.fc1",
    ".mlp.out": "mlp.fc2",
}
_FUSED = "attn.qkv"
_PREFIXES = ("cls_token", "dist_token", "reg_token")
# What runs on tokens, prefix tokens first; the head and its norm are given one vector an image.
_ON_TOKENS = ("blocks", "norm", "norm_pre", "pos_drop")


class TimmLikeViT(TorchModel):
    """A vision transformer with timm's modules (`patch_embed.proj`, `blocks.i.attn.qkv`, `norm`), under the names of
    the other models: `blocks.i`, `blocks.i.attn.q#heads`, `blocks.i.attn.o@in#heads`, `blocks.i.mlp.in`.

    Queries and keys are those that `qkv` gives, before a norm of their own where there is one. timm itself is not
    needed. Inputs hold the images as `x`.

    Args:
        module: The model; it is not copied, moved or changed.
        input_size: Height and width of its images; by default what `patch_embed.img_size` says.
        name: What manifests call it; by default the class.

    Raises:
        ValueError: If a module of that name is missing, or no size is known.
    """

    def __init__(
        self, module: nn.Module, *, input_size: tuple[int, int] | None = None, name: str | None = None
    ) -> None:
        body: Any = module
        missing = _missing(body)
        if missing:
            raise ValueError(
                f"module is a {type(module).__name__} without {', '.join(missing[:3])}, which timm's vision "
                "transformers have: read it by its own paths, interp.models.torch_module.TorchModel(module)."
            )
        size = input_size or getattr(body.patch_embed, "img_size", None)
        if size is None:
            raise ValueError("input_size is None, and patch_embed.img_size does not tell it: give (height, width).")
        parts = {f"ln_final{side}": Place(body.norm, io) for side, io in SIDES}
        aliases = hook_names(parts)
        for i, block in enumerate(body.blocks):
            inside, names = _block(f"blocks.{i}", block)
            parts, aliases = parts | inside, aliases | names
        super().__init__(module, name=name, parts=parts, aliases=own_names(module, parts) | aliases)
        self._size, self._stride = pair(size), pair(body.patch_embed.proj.stride)
        self._patch = pair(body.patch_embed.proj.kernel_size)
        tokens = [token for kind in _PREFIXES if isinstance(token := getattr(body, kind, None), Tensor)]
        self._prefix = sum(token.shape[1] for token in tokens)

    def geometry(self, site: Site, inputs: Inputs | None = None) -> Geometry:
        """Patches, prefix tokens before them: in images of the inputs' size, or of that the model was made for."""
        size = self._size if inputs is None else pair(inputs.tensors["x"].shape[2:])
        root, patches = site.module.partition(".")[0], site.module.startswith("patch_embed")
        if (patches and site.io == "in") or not (patches or root in ("ln_final", *_ON_TOKENS)):
            return Geometry()
        grid = tuple((along - p) // s + 1 for along, p, s in zip(size, self._patch, self._stride, strict=True))
        return Geometry(
            "grid",
            grid,
            prefix=0 if patches else self._prefix,
            stride=self._stride,
            patch=self._patch,
            input_size=size,
            channels="first" if site.module == "patch_embed.proj" else None,
        )


def _missing(body: Any) -> list[str]:
    """Paths of timm's that a module lacks."""
    inside = [
        f"blocks.{i}.{path}"
        for i in range(len(getattr(body, "blocks", ())))
        for path in (*list(_INSIDE.values())[1:], _FUSED)
    ]
    return [path for path in ("patch_embed.proj", "blocks", "norm", *inside) if found(body, [path]) is None]


def _block(name: str, block: Any) -> tuple[dict[str, Place], dict[str, str]]:
    modules = {part: block.get_submodule(path) for part, path in _INSIDE.items()}
    fused, heads = block.get_submodule(_FUSED), block.attn.num_heads
    parts, aliases = block_parts(name, modules | {f".attn.{part}": fused for part in "qkv"}, heads)
    # The module gives no pattern, and the three are parts of one tensor.
    del parts[f"{name}.attn.hook_pattern"]
    for third, part in enumerate("qkv"):
        parts[f"{name}.attn.{part}#{heads}"] = _third(fused, third)
    return parts, aliases


def _third(fused: nn.Module, third: int) -> Place:
    def read(values: Tensor) -> Tensor:
        return values.chunk(3, dim=-1)[third]

    def write(values: Tensor, new: Tensor) -> Tensor:
        parts = values.chunk(3, dim=-1)
        return torch.cat([*parts[:third], new, *parts[third + 1 :]], dim=-1)

    return Place(fused, read=read, write=write)
