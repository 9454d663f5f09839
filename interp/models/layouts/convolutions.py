"""Where the positions of a map lie in the image, after the convolutions and poolings that made it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from torch import nn

from interp.models.layouts.base import Size, pair
from interp.types import Geometry, Site


class Window(NamedTuple):
    """What one position of a convolution or pooling sees of the map before it, a pair of axes each."""

    kernel: Size
    stride: Size
    padding: Size


class Map(NamedTuple):
    """The windows between the image and a map, and which of its axes holds the channels."""

    windows: tuple[Window, ...]
    channels: Literal["first", "last"] = "first"

    def after(self, part: nn.Module) -> "Map":
        """The map that a module makes of this one, its convolutions and poolings one after the other."""
        return Map((*self.windows, *windows_of(part.modules())))

    def geometry(self, size: Size) -> Geometry:
        """How the positions lie in images of a size.

        A position's patch has the size of a stride, and its centre is that of what the position sees: where
        convolutions pad, as in a ResNet, the first patch begins half a stride outside of the image.
        """
        grid, stride, centre = list(size), [1, 1], [0.0, 0.0]
        for window in self.windows:
            for axis, (kernel, step, padding) in enumerate(zip(*window, strict=True)):
                grid[axis] = (grid[axis] + 2 * padding - kernel) // step + 1
                centre[axis] += ((kernel - 1) / 2 - padding) * stride[axis]
                stride[axis] *= step
        start = (int((c - (s - 1) / 2) // 1) for c, s in zip(centre, stride, strict=True))
        return Geometry(
            "grid",
            tuple(grid),
            stride=tuple(stride),
            patch=tuple(stride),
            input_size=size,
            start=tuple(start),
            channels=self.channels,
        )


def geometry_of(maps: Mapping[str, Map]) -> Callable[[Site, Size], Geometry]:
    """How the positions of named maps lie in images of a size; other places have no grid.

    Args:
        maps: By canonical site.
    """
    return lambda site, size: maps[str(site)].geometry(size) if str(site) in maps else Geometry()


def windows_of(modules: Iterable[nn.Module]) -> tuple[Window, ...]:
    """The windows of the convolutions and poolings among modules that run one after the other."""
    return tuple(
        Window(pair(part.kernel_size), pair(part.stride), pair(part.padding))  # type: ignore[arg-type]
        for part in modules
        if isinstance(part, nn.Conv2d | nn.MaxPool2d)
    )
