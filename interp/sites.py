"""Where activations are read: the name of a place, the place in a running model, and how its positions are laid out."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a model where activations are read.

    Its canonical string is `module@io[index]#heads`, each part but the module left out at its default:
    `blocks.3`, `blocks.3@in`, `blocks.3.attn.hook_z#12`, `encoder.rnn@out[1]`.

    Args:
        module: Dotted path of the module, 0-based.
        io: Whether the module's output or its first input is read.
        heads: Attention heads concatenated in the last axis, where the site has heads.
        index: Which element, where the module returns a tuple.

    Raises:
        ValueError: If `index` is negative.
    """

    module: str
    io: Literal["out", "in"] = "out"
    heads: int | None = None
    index: int = 0

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"index is {self.index}, but elements are counted from the first: give 0 or more.")

    def __str__(self) -> str:
        io = f"@{self.io}" if self.io == "in" or self.index else ""
        return f"{self.module}{io}{f'[{self.index}]' if self.index else ''}{f'#{self.heads}' if self.heads else ''}"

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Read the canonical string back.

        Raises:
            ValueError: If the text is not of the form `module@io[index]#heads`.
        """
        if isinstance(text, Site):
            return text
        rest, _, heads = text.partition("#")
        module, _, io = rest.partition("@")
        io, _, index = io.partition("[")
        try:
            site = cls(module, io or "out", int(heads) if heads else None, int(index.rstrip("]")) if index else 0)  # type: ignore[arg-type]
        except ValueError:
            site = None
        if site is None or not module or site.io not in ("out", "in"):
            raise ValueError(
                f"site is {text!r}, but a site reads module@io[index]#heads with io 'in' or 'out', "
                "for example 'blocks.3', 'blocks.3@in' or 'blocks.3.attn.hook_z#12'."
            )
        return site


@dataclass(frozen=True)
class Place:
    """Where a site is found while its model runs: a side of a module, and how its tensor is shown.

    Args:
        module: The module that is hooked.
        io: Its output, or what it is given.
        index: Which element of a tuple, or which tensor it is given.
        read: From the module's tensor to what a reader sees (one of three fused projections, say); None for itself.
        write: From the module's tensor and what replaces the part that was shown, back to the module's tensor.
            A place that has `read` alone cannot be edited, and has a gradient only where `read` shows the very tensor
            that the model goes on with.
    """

    module: nn.Module
    io: Literal["out", "in"] = "out"
    index: int = 0
    read: Callable[[Tensor], Tensor] | None = None
    write: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def read_only(self) -> bool:
        """Whether nothing can take the place of what is shown."""
        return self.read is not None and self.write is None


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the positions of one example are laid out.

    Args:
        kind: `sequence` (tokens, frames) or `grid` (image patches, feature maps).
        grid: Size of each grid axis; empty for sequences, whose length varies.
        prefix: Tokens before the grid or sequence proper (class token, registers); they count in `position`.
        stride: Input units (pixels, samples) between neighbouring positions, an axis each.
        patch: Input units one position covers, an axis each.
        input_size: Size of the model's input, an axis each.
        rate: Input units a second, for sound and time series.
        start: Where the first position's patch begins, an axis each; negative where it reaches into padding, zeros
            by default.
        channels: Whether the site's own tensor has its channels before or after the positions; None where its
            shape tells: last for sequences, beside the grid for maps.
    """

    kind: Literal["sequence", "grid"] = "sequence"
    grid: tuple[int, ...] = ()
    prefix: int = 0
    stride: tuple[int, ...] = ()
    patch: tuple[int, ...] = ()
    input_size: tuple[int, ...] = ()
    rate: float | None = None
    start: tuple[int, ...] = ()
    channels: Literal["first", "last"] | None = None

    @property
    def positions(self) -> int | None:
        """Positions of one example, prefix counted; None where it varies."""
        return None if self.kind == "sequence" else self.prefix + functools.reduce(lambda a, b: a * b, self.grid, 1)

    def span(self, position: int) -> tuple[tuple[int, int], ...]:
        """First and one past the last input unit that a position's patch covers, an axis each; parts of it may lie
        in padding, outside of the input.

        Raises:
            ValueError: If the position is a prefix token or outside of the grid, or no stride is known.
        """
        self._need_stride()
        count, index = self.positions, position - self.prefix
        if index < 0 or (count is not None and position >= count):
            raise ValueError(
                f"position is {position}, but positions {self.prefix} to {'...' if count is None else count - 1} "
                "cover a part of the input: choose one of these."
            )
        cell = [index] if self.kind == "sequence" else []
        for size in reversed(self.grid):
            index, along = divmod(index, size)
            cell.insert(0, along)
        starts = self.start or (0,) * len(cell)
        begins = [start + along * stride for start, along, stride in zip(starts, cell, self.stride, strict=True)]
        return tuple((begin, begin + size) for begin, size in zip(begins, self.patch or self.stride, strict=True))

    def seconds(self, position: int) -> tuple[float, float]:
        """When the patch of a position of sound or of a time series begins and ends, in seconds.

        Raises:
            ValueError: If no rate is known, or `span` refuses.
        """
        if self.rate is None or self.kind != "sequence":
            raise ValueError(f"{self} has no seconds: declare a sequence with rate=, in input units a second.")
        ((begin, end),) = self.span(position)
        return begin / self.rate, end / self.rate

    def at(self, *point: int) -> int:
        """The position that a point of the input belongs to: the last one whose patch begins at or before it. In a
        grid, points beyond an edge belong to the positions on it.

        Args:
            point: Input units from the start, an axis each (row and column of a pixel; a sample).

        Raises:
            ValueError: If no stride is known, or the point has other axes.
        """
        self._need_stride()
        if len(point) != len(self.stride):
            raise ValueError(f"point is {point}, but this geometry has {len(self.stride)} axes: give one number each.")
        starts, index = self.start or (0,) * len(point), 0
        cells = [max((x - start) // stride, 0) for x, start, stride in zip(point, starts, self.stride, strict=True)]
        for cell, size in zip(cells, self.grid or (max(cells) + 1,), strict=True):
            index = index * size + min(cell, size - 1)
        return self.prefix + index

    def _need_stride(self) -> None:
        if not self.stride:
            raise ValueError(f"{self} does not say which input its positions cover: declare its stride.")

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `from_json`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Geometry":
        """Inverse of `to_json`."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)
