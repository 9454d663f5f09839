"""One layer of a batch as maps see it: channels last, prefix tokens and padding left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.captured import Capture, channels_last
from interp.types import Site


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
    acts, mask = _on_grid(found, site, found.values[site]), None
    grads = _on_grid(found, site, found.grads[site]) if found.grads else None
    if found.mask is not None and acts.ndim == 3:
        mask = found.mask[:, found.geometries[site].prefix :].to(acts.device)
    if mask is None or mask.shape != acts.shape[:2] or bool(mask.all()):
        yield Layer(site, torch.arange(len(acts)), None, acts, grads, tuple(acts.shape[1:-1]))
        return
    for kept, members in _groups(mask):
        slopes = None if grads is None else grads[members][:, kept]
        yield Layer(site, members.cpu(), kept, acts[members][:, kept], slopes, tuple(acts.shape[1:-1]))


def _on_grid(found: Capture, site: Site, values: Tensor) -> Float[Tensor, "b *grid d"]:
    geometry = found.geometries[site]
    values = channels_last(values, geometry, site)
    if geometry.kind == "grid" and values.ndim == 3:
        return values[:, geometry.prefix :].unflatten(1, geometry.grid)
    return values if geometry.kind == "grid" else values[:, geometry.prefix :]


def _groups(mask: Bool[Tensor, "b p"]) -> Iterator[tuple[Int[Tensor, " k"], Int[Tensor, " g"]]]:
    """Positions that hold data, and the examples that have data at just these."""
    patterns, of = torch.unique(mask, dim=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        yield pattern.nonzero()[:, 0], (of == i).nonzero()[:, 0]
