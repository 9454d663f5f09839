"""Maps over their pictures: layers by methods for one example, or several examples, or features, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from analyses.maps import Maps, grown

_OPACITY = 0.8
_WIDE = 18  # letters that fit above a map


def map_matrix(
    maps: Maps, pictures: Float[Tensor, "b c h w"] | None = None, *, example: int = 0, smooth: bool = True
) -> Figure:
    """Draw all maps of one example: a row a site, a column a method; of features, a row a feature.

    A method with negative values has two colours that meet in 0, others one; each map has its own scale, since methods
    have their own units. What is nearly 0 is see-through.

    Args:
        maps: What `attribute` gave.
        pictures: What the model saw (`inputs.tensors["pixel_values"]`), drawn in grey beneath; None for maps alone.
        example: Which example.
        smooth: Grow the maps to the input where their geometry allows it, rather than to draw a square a position.

    Returns:
        The figure; its axes are in rows.

    Raises:
        ValueError: If there is no such example, or a map has no two axes.
    """
    rows = _rows(maps)
    _check(maps, [example])
    figure, axes = _grid(len(rows), len(maps.methods))
    for method, column in zip(maps.methods, axes.T, strict=True):
        drawn = [_Drawn.of(maps, (site, method), example, feature, smooth=smooth) for site, feature in rows]
        signed = any(part.signed for part in drawn)
        for part, ax in zip(drawn, column, strict=True):
            part.draw(ax, pictures, signed=signed, most=part.most)
    for (site, feature), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(site if feature is None else f"feature {_number(maps, feature)}", fontsize=9)
    for method, ax in zip(maps.methods, axes[0], strict=True):
        ax.set_title(_wrapped(method), fontsize=9)
    return figure


def map_examples(
    maps: Maps,
    pictures: Float[Tensor, "b c h w"] | None = None,
    *,
    examples: Sequence[int] = range(8),
    smooth: bool = True,
) -> Figure:
    """Draw one column for each of several examples, with a row for each site, method and feature; the score above.

    A row has one scale.

    Args:
        maps: What `attribute` gave.
        pictures: As in `map_matrix`.
        examples: Which examples.
        smooth: As in `map_matrix`.

    Returns:
        The figure; its axes are in rows.

    Raises:
        ValueError: As `map_matrix`.
    """
    shown = [number for number in examples if number < len(maps)] if isinstance(examples, range) else list(examples)
    _check(maps, shown)
    places, values = _rows(maps), maps.values
    rows = [(site, feature, method) for site, feature in places for method in maps.methods if (site, method) in values]
    figure, axes = _grid(len(rows), len(shown))
    for (site, feature, method), line in zip(rows, axes, strict=True):
        drawn = [_Drawn.of(maps, (site, method), number, feature, smooth=smooth) for number in shown]
        signed, most = any(part.signed for part in drawn), max(part.most for part in drawn)
        for part, ax in zip(drawn, line, strict=True):
            part.draw(ax, pictures, signed=signed, most=most)
        of = site if feature is None else f"feature {_number(maps, feature)}"
        line[0].set_ylabel(f"{of}\n{_wrapped(method)}", fontsize=8)
    for number, ax in zip(shown, axes[0], strict=True):
        ax.set_title("" if maps.scores is None else f"{float(maps.scores[number]):.3g}", fontsize=9)
    return figure


def _rows(maps: Maps) -> list[tuple[str, int | None]]:
    places = [None] if maps.features is None else list(range(len(maps.features)))
    return [(site, place) for site in maps.sites for place in places]


def _wrapped(method: str) -> str:
    """A method's arguments below its name, a line each, so that names do not run into each other."""
    return method if len(method) <= _WIDE else method.replace("(", "\n(", 1).replace(", ", ",\n")


def _number(maps: Maps, place: int) -> int:
    assert maps.features is not None
    return maps.features[place]


def _check(maps: Maps, examples: Sequence[int]) -> None:
    if not examples or not all(0 <= number < len(maps) for number in examples):
        raise ValueError(f"examples are {list(examples)}, but maps are of 0 to {len(maps) - 1}: choose of these.")
    lead = 1 if maps.features is None else 2
    for (site, _), values in maps.values.items():
        if values.ndim != lead + 2:
            raise ValueError(
                f"maps of {site} have {values.ndim - lead} axes, but a picture has two: draw those of texts with "
                "analyses.plots.map_texts, or choose a slice of a volume."
            )


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    size = (1.5 * columns + 0.4, 1.5 * rows + 0.4)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


@dataclass(frozen=True)
class _Drawn:
    """One map, ready to be drawn.

    Args:
        heat: Its values.
        extent: Where they lie in the input: left, right, bottom, top.
        size: Of the input, or of the map where the input is not known.
        example: Which picture lies beneath.
    """

    heat: NDArray[np.float32]
    extent: tuple[int, int, int, int]
    size: tuple[int, int]
    example: int

    @classmethod
    def of(cls, maps: Maps, key: tuple[str, str], example: int, feature: int | None, *, smooth: bool) -> "_Drawn":
        values, geometry = maps.values[key][example], maps.geometries[key[0]]
        values = (values if feature is None else values[feature]).detach().cpu().float()
        rows, columns = values.shape
        if not (geometry.stride and geometry.input_size):
            return cls(values.numpy(), (0, columns, rows, 0), (rows, columns), example)
        h, w = geometry.input_size
        if smooth:
            return cls(grown(values[None], geometry, None, key[0], lead=1)[0].numpy(), (0, w, h, 0), (h, w), example)
        # Squares lie on their patches, which need not fill the input.
        (top, left), (down, across) = geometry.start or (0, 0), geometry.stride
        return cls(values.numpy(), (left, left + across * columns, top + down * rows, top), (h, w), example)

    @property
    def most(self) -> float:
        """The largest size of a value."""
        return float(np.abs(self.heat).max())

    @property
    def signed(self) -> bool:
        """Whether a value is negative by more than rounding."""
        return float(self.heat.min()) < -1e-6 * self.most

    def draw(self, ax: Axes, pictures: Tensor | None, *, signed: bool, most: float) -> None:
        """Draw it over its picture, on a scale to `most`, or to 1 where all are 0."""
        (h, w), most = self.size, most or 1.0
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
        if pictures is not None:
            picture = pictures[self.example].detach().cpu().float().mean(dim=0).numpy()
            ax.imshow(picture, cmap="gray", extent=(0, w, h, 0))
        palette = sns.color_palette("vlag" if signed else "rocket", as_cmap=True)
        norm = Normalize(-most if signed else 0, most)
        opacity = _OPACITY * np.abs(self.heat) / most if pictures is not None else None
        ax.imshow(self.heat, cmap=palette, norm=norm, alpha=opacity, extent=self.extent, interpolation="nearest")
        ax.set(xlim=(0, w), ylim=(h, 0))
