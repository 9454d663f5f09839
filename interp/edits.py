"""What an edit is: a change of chosen rows of an activation, wherever the model keeps its channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.captured import channels_last
from interp.types import Geometry, Site

Positions = int | slice | Sequence[int] | Int[Tensor, " k"] | Bool[Tensor, " p"] | Bool[Tensor, "b p"]
Heads = int | Sequence[int]


@dataclass(frozen=True)
class Rows:
    """The rows that an edit changes, with their addresses in the batch.

    Args:
        values: The activations.
        example: The example of each row, counted in the batch.
        position: Its position, prefix tokens counted.
        shape: Examples, positions and width of the whole activation.
        place: What messages call it.
    """

    values: Float[Tensor, "n d"]
    example: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    shape: tuple[int, int, int]
    place: str

    def spread(self, name: str, given: Float[Tensor, "*shape"]) -> Float[Tensor, "n d"]:
        """One given vector a row, on the rows' device and in their precision.

        Args:
            name: What messages call it.
            given: `[d]` for all rows, `[b, d]` for one an example, or `[b, p, d]`, where 1 stands for any length.

        Raises:
            ValueError: If it has another shape.
        """
        b, p, d = self.shape
        full = given[:, None] if given.ndim == 2 else given
        lengths = zip(full.shape[:-1], (b, p), strict=False)
        if not 1 <= given.ndim <= 3 or given.shape[-1] != d or any(n not in (1, most) for n, most in lengths):
            raise ValueError(
                f"{name} has shape {list(given.shape)}, but {self.place} holds a tensor of shape {list(self.shape)}: "
                f"give [{d}], [{b}, {d}] or [{b}, {p}, {d}]."
            )
        return full.to(self.values).expand(b, p, d)[self.example, self.position]

    def need_width(self, name: str, width: int) -> None:
        """Compare a width with the activation's.

        Raises:
            ValueError: If they differ.
        """
        if width != self.shape[-1]:
            raise ValueError(
                f"{self.place} holds a tensor of shape {list(self.shape)}, but {name} has vectors of width {width}: "
                "choose the site that they were made for."
            )


@dataclass(frozen=True)
class Edit:
    """A function from an activation to the one that takes its place: chosen rows change, the others stay to the bit.

    Args:
        change: From the chosen rows to those that take their place.
        positions: Positions to change, prefix tokens counted: an index (negative ones count from the end), several,
            a slice, or a mask `[p]` or `[b, p]`; all of them by default.
        heads: Heads whose channels change, where the site has heads; all channels by default.
    """

    change: Callable[[Rows], Tensor]
    positions: Positions | None = None
    heads: Heads | None = None

    def __call__(self, values: Tensor, site: Site | None = None, geometry: Geometry | None = None) -> Tensor:
        """Change what was chosen.

        Args:
            values: What the model made; it is not written to.
            site: Where; says how many heads there are, and what messages call it.
            geometry: How its positions are laid out; a sequence by default.

        Raises:
            ValueError: If the activation has no such positions, heads or width.
        """
        place = str(site) if site else "the activation"
        if not values.is_floating_point():
            raise ValueError(f"{place} holds {values.dtype}, but an edit changes vectors: choose a site that has them.")
        new = values.clone()
        view = channels_last(new, geometry or Geometry(), place)
        shape = (view.shape[0], view.shape[1:-1].numel(), view.shape[-1])
        chosen = _chosen(self.positions, shape, place).to(values.device)
        if not chosen.any():
            return values
        grid = chosen.view(view.shape[:-1])
        old = view[grid]
        example, position = chosen.nonzero(as_tuple=True)
        changed = self.change(Rows(old, example, position, shape, place)).to(old)
        if self.heads is not None:
            changed = torch.where(_channels(self.heads, site, shape[-1], place).to(old.device), changed, old)
        view[grid] = changed
        return new


def _chosen(positions: Positions | None, shape: tuple[int, int, int], place: str) -> Bool[Tensor, "b p"]:
    b, p, _ = shape
    chosen = torch.zeros(p, dtype=torch.bool)
    if positions is None or isinstance(positions, slice):
        chosen[positions or slice(None)] = True
        return chosen.expand(b, p)
    given = torch.as_tensor(positions)  # a list of truth values is a mask too
    if given.dtype == torch.bool:
        if tuple(given.shape) not in ((p,), (b, p)):
            raise ValueError(
                f"positions is a mask of shape {list(given.shape)}, but {place} holds {b} examples of {p} "
                f"positions, prefix tokens counted: give [{p}] or [{b}, {p}]."
            )
        return given.expand(b, p)
    asked = given.reshape(-1).tolist()
    if any(not isinstance(position, int) or not -p <= position < p for position in asked):
        raise ValueError(
            f"positions is {asked}, but {place} holds {p} positions, prefix tokens counted: "
            f"choose from 0..{p - 1}, or -{p}..-1 from the end."
        )
    chosen[asked] = True
    return chosen.expand(b, p)


def _channels(heads: Heads, site: Site | None, d: int, place: str) -> Bool[Tensor, " d"]:
    """Channels of some heads, which stand one after the other."""
    count = site.heads if site else None
    asked = [heads] if isinstance(heads, int) else list(heads)
    if not count or d % count or any(not 0 <= head < count for head in asked):
        found = f"{count} heads in {d} channels" if count else "no heads"
        raise ValueError(
            f"heads is {asked}, but {place} has {found}: choose from those it has, at a site such as "
            "'blocks.3.attn.hook_z', or leave heads= out."
        )
    chosen = torch.zeros(count, d // count, dtype=torch.bool)
    chosen[asked] = True
    return chosen.flatten()
