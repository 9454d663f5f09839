"""Objects in pictures, or parts of sequences, from what one layer of a model makes of them."""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from analyses.discovering import classes, made
from analyses.layers import Layer, layers
from analyses.maps import grown
from analyses.passes import Examples
from analyses.segmentation.base import Objects, Segmenter
from interp.captured import Capture
from interp.capturing import capture
from interp.models.base import Model
from interp.types import Geometry, Inputs, Site

_PATTERN = ".attn.hook_pattern"
_BY_DEFAULT = {"vectors": (".attn.k", ".attn.hook_k"), "patterns": (_PATTERN,)}


@dataclass(frozen=True)
class Segments(Objects):
    """What `segment` gives: objects in positions of the layer, those of padding in none of them.

    Args:
        masks: As in `Objects`.
        saliency: As in `Objects`.
        details: As in `Objects`.
        site: Where they come from.
        geometry: How positions are laid out, prefix tokens not among those of the masks.
    """

    site: Site
    geometry: Geometry

    def upsampled(self, size: tuple[int, ...] | None = None) -> Objects:
        """The objects in units of the input: a mask fills the patches of its positions, and boxes go around that.

        Where patches overlap, each takes what is nearest to its centre. Saliency is linear between centres.

        Args:
            size: Size of the result, an axis each; by default that of the input.

        Raises:
            ValueError: If the site's geometry does not say where its positions lie in the input.
        """
        saliency = grown(self.saliency, self.geometry, size, str(self.site), lead=2)
        return Objects(_filled(self.masks, self.geometry, tuple(saliency.shape[2:])), saliency, self.details)


def segmenters() -> dict[str, type[Segmenter]]:
    """Name and class of every method."""
    return classes(("analyses.segmentation",), (Segmenter,))


def segment(
    model: Model,
    inputs: Inputs,
    site: str | Site | None = None,
    *,
    method: str | Segmenter = "TokenCut",
    batch_size: int = 32,
) -> Segments:
    """Find the objects of each example, with no label. The model is left as it was found.

    Args:
        model: The model.
        inputs: What it runs on, of any number of examples.
        site: Where it is read; by default the keys of the last block, or its attention pattern where the method reads
            one (`load_model(..., attention="eager")`).
        method: One of `analyses.segmentation`, by name or made with arguments.
        batch_size: Examples that run at once.

    Raises:
        ValueError: If a name is unknown, the site is not what the method reads, or its activations are not finite.
    """
    if batch_size < 1 or not len(inputs):
        raise ValueError(f"batch_size is {batch_size} for {len(inputs)} examples, but both are at least 1: give some.")
    chosen = made(method, segmenters(), "method")
    where = _site(model, site, chosen)
    drawn = _Drawn(len(inputs))
    for chunk in Examples.all(inputs).chunks(batch_size):
        found = capture(model, chunk.inputs, where)
        geometry = _around(model, where, chunk.inputs) if chosen.reads == "patterns" else found.geometries[where]
        for layer in [_attended(found, where, geometry)] if chosen.reads == "patterns" else layers(found, where):
            drawn.add(layer, chosen(layer.acts), chunk.numbers[layer.examples])
    return Segments(drawn.parts["masks"] > 0, drawn.parts["saliency"], drawn.details, where, geometry)


def _site(model: Model, site: str | Site | None, method: Segmenter) -> Site:
    if site is None:
        ends = "|".join(re.escape(end) for end in _BY_DEFAULT[method.reads])
        blocks = {
            int(match[1]): name
            for name in model.sites()
            if (match := re.fullmatch(rf"blocks\.(\d+)(?:{ends})(?:#\d+)?", name))
        }
        if not blocks:
            raise ValueError(
                f"site is None, but {model.name} has no blocks with {' or '.join(_BY_DEFAULT[method.reads])}: name a "
                "site that holds " + method.reads + "; model.sites() lists all."
            )
        site = blocks[max(blocks)]
    where = model.site(site)
    if where.module.endswith(_PATTERN) != (method.reads == "patterns"):
        raise ValueError(
            f"site is {where}, but {type(method).__name__} reads {method.reads}: "
            + ("name one that ends in hook_pattern." if method.reads == "patterns" else "name one with a vector each.")
        )
    return where


def _around(model: Model, site: Site, inputs: Inputs) -> Geometry:
    """How the positions lie that a pattern is of: those of its block.

    Raises:
        ValueError: If they are no grid behind a class token.
    """
    geometry = model.geometry(model.site(site.module.removesuffix(_PATTERN)), inputs)
    if geometry.kind != "grid" or not geometry.prefix:
        raise ValueError(
            f"site is {site}, but {model.name} has no class token before a grid there, whose attention could be drawn: "
            "choose a method that reads vectors (TokenCut)."
        )
    return geometry


def _attended(found: Capture, site: Site, geometry: Geometry) -> Layer:
    """What the class token, the first of all, attends to: the heads of each position of the grid."""
    heads = found.values[site][:, :, 0, geometry.prefix :].mT.unflatten(1, geometry.grid)
    return Layer(site, torch.arange(len(heads)), None, heads, None, geometry.grid)


class _Drawn:
    """Objects as they come, a group of examples at a time."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.parts: dict[str, Tensor] = {}
        self.details: dict[str, Tensor] = {}

    def add(self, layer: Layer, objects: Objects, numbers: Tensor) -> None:
        """Write a group's objects where they belong."""
        for name, part in (("masks", objects.masks.to(objects.saliency)), ("saliency", objects.saliency)):
            if name not in self.parts:
                self.parts[name] = part.new_zeros(self.examples, part.shape[1], *layer.shape)
            layer.spread(part, self.parts[name], numbers)
        for name, part in objects.details.items():
            whole = self.details.setdefault(name, part.new_zeros(self.examples, part.shape[1]))
            whole[numbers.to(whole.device)] = part


def _filled(masks: Bool[Tensor, "b k *grid"], geometry: Geometry, size: tuple[int, ...]) -> Bool[Tensor, "b k *size"]:
    """Masks in units of the input; units that no patch covers are in none."""
    starts, patches = geometry.start or (0,) * len(geometry.stride), geometry.patch or geometry.stride
    for axis, whole in enumerate(geometry.input_size):
        length, stride, patch, cells = size[axis], geometry.stride[axis], patches[axis], masks.shape[2 + axis]
        places = (torch.arange(length, dtype=torch.float64) + 0.5) * whole / length
        from_centre = places - (starts[axis] + patch / 2)
        cell = (from_centre / stride).round().clamp(0, cells - 1).long()
        covered = (from_centre - cell * stride).abs() <= patch / 2
        shape = [-1 if i == 2 + axis else 1 for i in range(masks.ndim)]
        masks = masks.index_select(2 + axis, cell.to(masks.device)) & covered.to(masks.device).view(shape)
    return masks
