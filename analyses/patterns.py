"""Attention patterns of all blocks of a model, and the row of them that is a map."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.running import Runner
from interp.models.base import Model
from interp.types import Site


def pattern_sites(model: Model) -> list[Site]:
    """Where the patterns of a model's blocks are read, first block first.

    Args:
        model: The model.

    Raises:
        ValueError: If it shows none.
    """
    names = [name for name in model.sites() if re.fullmatch(r"blocks\.\d+\.attn\.hook_pattern", name)]
    if not names:
        raise ValueError(
            f"{model.name} shows no attention patterns (blocks.0.attn.hook_pattern), of which this method is made: "
            "give a transformer, load_model(..., attention='eager'), or choose another method (IntegratedGradients)."
        )
    return [model.site(name) for name in sorted(set(names), key=lambda name: int(name.split(".")[1]))]


def checked_patterns(values: Mapping[Site, Tensor], sites: Sequence[Site]) -> list[Float[Tensor, "b h p p"]]:
    """The patterns at these sites.

    Args:
        values: What was read.
        sites: Which of it.

    Raises:
        ValueError: If one is not over the same positions as the first, on both sides.
    """
    first = values[sites[0]].shape
    for site in sites:
        found = values[site].shape
        if len(found) != 4 or not found[2] == found[3] == first[-1]:
            raise ValueError(
                f"{site} holds a pattern of shape {tuple(found)}, but attention is followed through blocks that all "
                f"attend from and to the same {first[-1]} positions, [b, heads, p, p]: choose another method "
                "(IntegratedGradients)."
            )
    return [values[site] for site in sites]


def row(runner: Runner, matrices: Float[Tensor, "b p p"], position: int | None) -> Float[Tensor, " b *grid"]:
    """What each position of a map gave to one that looks at all of them.

    Args:
        runner: The examples, at a site of just these positions.
        matrices: From each position, its row, to all.
        position: Who looks: prefix tokens counted, padding not, and from the end where it is negative. None for the
            class token; where a model has none, the mean over all positions.

    Raises:
        ValueError: If the site has other positions, or an example has no such position.
    """
    b, p = matrices.shape[:2]
    prefix, grid = runner.geometry.prefix, runner.vectors(runner.values).shape[1:-1]
    if prefix + math.prod(grid) != p:
        raise ValueError(
            f"{runner.site} has {prefix + math.prod(grid)} positions, but the attention of {runner.scorer.model.name} "
            f"is over {p}, prefix tokens counted: ask for the map at a block (blocks.0)."
        )
    held = torch.ones(b, p, dtype=torch.bool) if runner.held is None else runner.held
    held = held.to(matrices.device)
    if position is None and not prefix:
        looking = held / held.sum(dim=1, keepdim=True)
    else:
        looking = torch.nn.functional.one_hot(_place(held, position or 0), p)
    lines = (looking.to(matrices)[:, None] @ matrices)[:, 0]
    return (lines * held)[:, prefix:].unflatten(1, grid)


def _place(held: Bool[Tensor, "b p"], position: int) -> Int[Tensor, " b"]:
    """Where the position of this number stands among those that hold data."""
    lengths = held.sum(dim=1)
    number = lengths + position if position < 0 else torch.full_like(lengths, position)
    if bool(((number < 0) | (number >= lengths)).any()):
        raise ValueError(
            f"position is {position}, but an example has {int(lengths.min())} positions: give a number of one of them, "
            "or None."
        )
    return ((held.cumsum(dim=1) - 1 == number[:, None]) & held).int().argmax(dim=1)
