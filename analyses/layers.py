"""One layer of a batch as maps see it: channels last, prefix tokens and padding left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.captured import Capture, channels_last
from interp.types import Geometry, Site


@dataclass(frozen=True)
class Layer:
    """Examples of a batch that have the same positions.

    Args:
        site: Where.
        examples: Which examples of the batch.
        positions: Which positions of the padded batch hold their data, prefix tokens not counted; None for all.
        acts: Their activations.
        grads: The gradient of each example's score.
        shape: Shape of a map with padding.
    """

    site: Site
    examples: Int[Tensor, " g"]
    positions: Int[Tensor, " p"] | None
    acts: Float[Tensor, "g *grid d"]
    grads: Float[Tensor, "g *grid d"] | None
    shape: tuple[int, ...]

    def spread(self, maps: Float[Tensor, "g ..."], into: Float[Tensor, "b ..."], numbers: Int[Tensor, " g"]) -> None:
        """Write maps of these positions where they belong, in the rows that are named."""
        numbers = numbers.to(into.device)
        if self.positions is None:
            into[numbers] = maps.to(into)
        else:
            whole = into[numbers]
            whole[..., self.positions.to(into.device)] = maps.to(into)
            into[numbers] = whole


def layers(found: Capture, site: Site) -> Iterator[Layer]:
    """A site of a capture. Sequences come in groups of one length, so that no method ever sees padding.

    Args:
        found: The capture.
        site: Which of its sites.
    """
    geometry, mask = found.geometries[site], None
    acts = on_grid(found.values[site], geometry, site)
    grads = on_grid(found.grads[site], geometry, site) if found.grads else None
    if found.mask is not None and acts.ndim == 3:
        mask = found.mask[:, geometry.prefix :].to(acts.device)
    if mask is None or mask.shape != acts.shape[:2] or bool(mask.all()):
        yield Layer(site, torch.arange(len(acts)), None, acts, grads, tuple(acts.shape[1:-1]))
        return
    for kept, members in _groups(mask):
        slopes = None if grads is None else grads[members][:, kept]
        yield Layer(site, members.cpu(), kept, acts[members][:, kept], slopes, tuple(acts.shape[1:-1]))


def on_grid(values: Tensor, geometry: Geometry, site: Site) -> Float[Tensor, "b *grid d"]:
    """Activations, or anything of their shape, as one vector a position, prefix tokens left out: a view.

    Args:
        values: As the model makes them.
        geometry: How their positions are laid out.
        site: What messages call the place.
    """
    seen = channels_last(values, geometry, site)
    if geometry.kind == "grid" and seen.ndim > 3:
        return seen
    seen = seen[:, geometry.prefix :]
    return seen.unflatten(1, geometry.grid) if geometry.kind == "grid" else seen


def _groups(mask: Bool[Tensor, "b p"]) -> Iterator[tuple[Int[Tensor, " k"], Int[Tensor, " g"]]]:
    """Positions that hold data, and the examples that have data at just these."""
    patterns, of = torch.unique(mask, dim=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        yield pattern.nonzero()[:, 0], (of == i).nonzero()[:, 0]
