"""What one pass through a model gave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.types import Activations, Geometry, Site


@dataclass(frozen=True)
class Capture:
    """What one pass gave.

    Args:
        values: The activations of each site, as the model makes them: `[b, p, d]`, `[b, d]` or maps.
        grads: The gradient of the summed score at each site; empty where no score was asked for.
        mask: True where a position holds data; None where all do.
        output: What the model's forward returned; None where the pass stopped after the last site.
        geometries: How the positions of each site are laid out.
        names: The canonical site of each name as it was asked for.
        scores: What the score gave; None where none was asked for.
    """

    values: dict[Site, Tensor]
    grads: dict[Site, Tensor] = field(default_factory=dict)
    mask: Bool[Tensor, "b p"] | None = None
    output: Any = None
    geometries: Mapping[Site, Geometry] = field(default_factory=dict)
    names: Mapping[str, Site] = field(default_factory=dict)
    scores: Tensor | None = None

    def rows(self, site: Site | str, examples: Int[Tensor, " b"] | Sequence[int] | None = None) -> Activations:
        """Flatten one site to rows with addresses, views where no position is padded; padded ones are left out.

        Args:
            site: A captured site, or the name it was asked by.
            examples: The dataset's index of each example of the batch; 0, 1, ... by default.

        Raises:
            ValueError: If the site was not captured, or its tensor has no positions that match the batch.
        """
        site = self._site(site)
        values = self._by_position(self.values[site], site)
        b, p = values.shape[:2]
        ids = torch.arange(b) if examples is None else torch.as_tensor(examples)
        if len(ids) != b:
            raise ValueError(f"examples has {len(ids)} entries, but {site} holds {b} examples: give one for each.")
        ids = ids.to(values.device, torch.long)
        grads = self._by_position(self.grads[site], site).flatten(0, 1) if site in self.grads else None
        positions = torch.arange(p, device=values.device).repeat(b)
        rows = Activations(values.flatten(0, 1), ids.repeat_interleave(p), positions, grads)
        keep = self._kept(site, b, p)
        return rows if keep is None else rows[keep.flatten().to(values.device)]

    def vectors(self, site: Site | str) -> Float[Tensor, "b p d"]:
        """One vector a position of one site, padded positions included.

        Raises:
            ValueError: As `rows`.
        """
        site = self._site(site)
        return self._by_position(self.values[site], site)

    def _site(self, name: Site | str) -> Site:
        site = self.names.get(str(name)) or Site.parse(name)
        if site not in self.values:
            raise ValueError(f"site is {site}, but this capture holds {', '.join(map(str, self.values))}: ask for it.")
        return site

    def _kept(self, site: Site, b: int, p: int) -> Bool[Tensor, "b p"] | None:
        """Positions that hold data; None for all."""
        if self.mask is None or self.values[site].ndim == 2:
            return None
        if self.mask.shape != (b, p):
            raise ValueError(
                f"{site} holds {b} examples of {p} positions, but the batch's mask is {tuple(self.mask.shape)}: "
                "this place has no row for each token; read its tensor from `values`."
            )
        return self.mask

    def _by_position(self, values: Tensor, site: Site) -> Float[Tensor, "b p d"]:
        """One vector a position; positions of a map in row-major order."""
        return channels_last(values, self.geometries.get(site, Geometry()), site).flatten(1, -2)


def channels_last(values: Tensor, geometry: Geometry, site: Site | str) -> Float[Tensor, "b *grid d"]:
    """See activations with their channels in the last axis, whatever their layout: a view, written through.

    Args:
        values: What the model makes at the site: `[b, p, d]`, maps, or `[b, d]`, which is seen as one position.
        geometry: How its positions are laid out.
        site: What messages call it.

    Raises:
        ValueError: If the shape does not fit the geometry, or fits it in two ways.
    """
    shape = tuple(values.shape)
    if values.ndim == 2:
        return values.unsqueeze(1)
    first, last = (_fits(found, geometry) for found in (shape[2:], shape[1:-1]))
    # Where nothing is declared, three axes are positions and then channels, and maps go by their grid.
    first &= geometry.channels == "first" or (geometry.channels is None and shape[2:] == geometry.grid)
    last &= geometry.channels != "first"
    if first and last:
        raise ValueError(
            f"{site} holds a tensor of shape {shape}, whose channels may stand before its grid or after it: "
            "declare Geometry(..., channels='first') or 'last' for this site."
        )
    if first or last:
        return values.movedim(1, -1) if first else values
    if values.ndim == 4 and shape[2] == shape[3] and not geometry.grid:
        raise ValueError(
            f"{site} holds a tensor of shape {shape}, a matrix of positions for each head or a map without a grid, and "
            "so no vector a position: read it from `values`, or declare geometry=Geometry('grid', grid=...)."
        )
    raise ValueError(
        f"{site} holds a tensor of shape {shape}, but its declared grid is {geometry.grid}: "
        "declare geometry=Geometry('grid', grid=...) for this site, give an edit of inputs of another size inputs=, or "
        "read the tensor from `values`."
    )


def _fits(found: tuple[int, ...], geometry: Geometry) -> bool:
    """Whether these are the axes of all positions: the grid, or one axis along which they all stand."""
    return found == geometry.grid or (len(found) == 1 and geometry.positions in (None, *found))
