"""Maps of examples: one number a position, for each site and method, with the layout of its positions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.types import Geometry, Site

Key = tuple[str, str]


@dataclass(frozen=True)
class Maps:
    """What `attribute` gives: raw, signed, in the units that each method states.

    Args:
        values: By site and method, `[b, *grid]`, or `[b, f, *grid]` where maps are of features. Where sequences have
            lengths of their own, padded positions are 0.
        scores: What was explained, one an example; None where no method needed it.
        geometries: How the positions of each site are laid out, its prefix tokens not among those of the maps.
        mask: True where a position of a sequence holds data; None where all do.
        features: The features that the second axis counts; None for maps of the layer itself.
        details: By site and method, what the method said about each map.
    """

    values: Mapping[Key, Float[Tensor, "b ..."]]
    scores: Float[Tensor, " b"] | None
    geometries: Mapping[str, Geometry]
    mask: Bool[Tensor, "b p"] | None = None
    features: tuple[int, ...] | None = None
    details: Mapping[Key, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites, in the order asked."""
        return tuple(dict.fromkeys(site for site, _ in self.values))

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods, in the order asked."""
        return tuple(dict.fromkeys(method for _, method in self.values))

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, key: str | tuple[str | Site, str]) -> Float[Tensor, "b ..."]:
        """The maps of a site and method, or of one of the two where there is one of the other.

        Raises:
            ValueError: If there are none, or several.
        """
        wanted = {key} if isinstance(key, str) else {str(part) for part in key}
        found = [own for own in self.values if wanted <= set(own)]
        if len(found) != 1:
            raise ValueError(
                f"{key!r} names {len(found)} of these maps, but one is read at a time: give maps[site, method], of "
                f"sites {', '.join(self.sites)} and methods {', '.join(self.methods)}."
            )
        return self.values[found[0]]

    def upsampled(self, size: tuple[int, ...] | None = None) -> "Maps":
        """The maps in units of the input: linear between the centres of patches, constant beyond the outermost.

        Args:
            size: Size of the result, an axis each; by default that of the input.

        Raises:
            ValueError: If a site's geometry does not say where its positions lie in the input.
        """
        larger = {
            key: grown(values, self.geometries[key[0]], size, key[0], lead=1 if self.features is None else 2)
            for key, values in self.values.items()
        }
        return replace(self, values=larger)

    def normalised(self) -> "Maps":
        """Each map moved and scaled to 0..1, for showing; a constant map becomes 0."""
        lead = 1 if self.features is None else 2
        return replace(self, values={key: to_unit(values, lead) for key, values in self.values.items()})


def to_unit(values: Float[Tensor, "b ..."], lead: int) -> Float[Tensor, "b ..."]:
    """Each map moved and scaled to 0..1; a constant map becomes 0.

    Args:
        values: The maps.
        lead: Axes before those of the grid.
    """
    flat = values.flatten(lead)
    low, high = flat.amin(dim=-1, keepdim=True), flat.amax(dim=-1, keepdim=True)
    return ((flat - low) / torch.where(high > low, high - low, 1)).view(values.shape)


def grown(
    values: Float[Tensor, "b ..."], geometry: Geometry, size: tuple[int, ...] | None, site: str, *, lead: int
) -> Float[Tensor, "b ..."]:
    """Maps in units of the input, linear between the centres of patches.

    Args:
        values: The maps.
        geometry: Where their positions lie.
        size: Size of the result, an axis each; None for that of the input.
        site: What messages call the place.
        lead: Axes before those of the grid.

    Raises:
        ValueError: If the geometry does not say where the positions lie in the input.
    """
    if not geometry.stride or not geometry.input_size:
        raise ValueError(
            f"the geometry of {site} does not say which input its positions cover: declare Geometry(..., stride=, "
            "input_size=) for this site, or use the maps as they are."
        )
    starts, patches = geometry.start or (0,) * len(geometry.stride), geometry.patch or geometry.stride
    for axis, (stride, whole) in enumerate(zip(geometry.stride, geometry.input_size, strict=True)):
        length = whole if size is None else size[axis]
        weights = _linear(values.shape[lead + axis], stride, starts[axis] + patches[axis] / 2, whole, length)
        values = (values.movedim(lead + axis, -1) @ weights.to(values).T).movedim(-1, lead + axis)
    return values


def _linear(cells: int, stride: int, centre: float, whole: int, length: int) -> Float[Tensor, "length cells"]:
    """What each unit of the result takes from each cell: its two neighbours, by how near their centres are."""
    places = (torch.arange(length, dtype=torch.float64) + 0.5) * whole / length
    at = ((places - centre) / stride).clamp(0, cells - 1)
    return (1 - (at[:, None] - torch.arange(cells, dtype=torch.float64)).abs()).clamp(min=0)
