"""How an architecture is built, in the house's words: where its parts are, and how its positions lie in the image."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from interp.types import Geometry, Place, Site

Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """What is known of a vision model's architecture.

    Args:
        body: The module from pixels to the last hidden state, below any head.
        parts: The places that have names, by canonical site.
        input_size: Height and width of the images that the model was made for, in pixels.
        geometry: How the positions of a site lie in images of a height and width.
        pooled: From the last hidden state to one vector an image, where the model does no pooling of its own.
        aliases: Other names of the parts.
        running: Holds around a forward pass what that would change in the model for good.
    """

    body: nn.Module
    parts: Mapping[str, Place]
    input_size: Size
    geometry: Callable[[Site, Size], Geometry]
    pooled: Callable[[Tensor], Float[Tensor, "b d"]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    running: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


def found(module: nn.Module, names: Iterable[str]) -> nn.Module | None:
    """The first of these dotted paths that the module has; an empty path is the module itself."""
    for name in names:
        part: Any = module
        for step in name.split(".") if name else ():
            part = getattr(part, step, None)
        if isinstance(part, nn.Module):
            return part
    return None


def pair(size: int | Iterable[int]) -> Size:
    """Height and width of what a config gives as one number or two."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def own_names(module: nn.Module, parts: Mapping[str, Place]) -> dict[str, str]:
    """The module's own dotted paths of whole parts (`encoder.layer.3@in`), with the canonical site of each."""
    sites = {(id(place.module), place.io, place.index): site for site, place in parts.items() if place.read is None}
    names = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for io in ("out", "in"):
            site = sites.get((id(part), io, 0))
            if path and site is not None:
                names[str(Site(path, io))] = site
    return names
