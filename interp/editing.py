"""Edits for `edited`, ready to use: each touches the positions and heads that it is given and no others.

Ablation; activation patching (Vig et al. 2020, Meng et al. 2022); steering by a direction (Turner et al. 2023);
projection (Bolukbasi et al. 2016); scaling of latents, the rest of the activation kept (Templeton et al. 2024).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.captured import Capture
from interp.edits import Edit, Heads, Positions, Rows
from interp.types import Directions, Site

__all__ = ["Edit", "Rows", "ablate", "add", "patch", "project_out", "replace", "scale_latent"]


def replace(values: Float[Tensor, "*shape"], *, positions: Positions | None = None, heads: Heads | None = None) -> Edit:
    """Put given vectors in the place of activations.

    Args:
        values: `[d]` for all rows, `[b, d]` for one an example, or `[b, p, d]`, where 1 stands for any length.
        positions: Positions to change, prefix tokens counted: an index (negative ones count from the end), several,
            a slice, or a mask `[p]` or `[b, p]`; all of them by default.
        heads: Heads whose channels change, where the site has heads; all channels by default.
    """
    return Edit(lambda rows: rows.spread("values", values), positions, heads)


def ablate(
    to: Literal["zero"] | Float[Tensor, "*shape"] = "zero",
    *,
    positions: Positions | None = None,
    heads: Heads | None = None,
) -> Edit:
    """Take activations away.

    Args:
        to: What is left: `zero`, or the site's mean, `[d]` or `[1, p, d]`.
        positions: As in `replace`.
        heads: As in `replace`.

    Raises:
        ValueError: If `to` is neither.
    """
    if isinstance(to, Tensor):
        return Edit(lambda rows: rows.spread("to", to), positions, heads)
    if to != "zero":
        raise ValueError(f"to is {to!r}, but an ablation leaves 'zero' or a tensor: give the mean itself.")
    return Edit(lambda rows: torch.zeros_like(rows.values), positions, heads)


def patch(
    source: Capture | Float[Tensor, "b p d"],
    site: Site | str | None = None,
    *,
    positions: Positions | None = None,
    heads: Heads | None = None,
) -> Edit:
    """Put what another input gave, position by position, in the place of activations.

    Args:
        source: A capture of as many examples, or of one for all; or its vectors, one a position.
        site: Which site of the capture; needed where it holds several.
        positions: As in `replace`.
        heads: As in `replace`.

    Raises:
        ValueError: If the capture holds several sites and none is named, or not the one named.
    """
    if isinstance(source, Capture):
        if site is None and len(source.values) > 1:
            raise ValueError(
                f"source holds {', '.join(map(str, source.values))}, but a patch is of one site: "
                "name it, patch(source, 'site')."
            )
        source = source.vectors(next(iter(source.values)) if site is None else site)
    values = source
    return Edit(lambda rows: rows.spread("source", values), positions, heads)


def add(
    direction: Float[Tensor, "*shape"] | tuple[Directions, int],
    strength: float | Float[Tensor, ""] | Float[Tensor, " b"] = 1.0,
    *,
    positions: Positions | None = None,
    heads: Heads | None = None,
) -> Edit:
    """Add a direction, as long as it is, times its strength.

    Args:
        direction: `[d]`, `[b, d]` for one an example, or a dictionary and the feature whose direction is meant.
        strength: One for all, or one an example.
        positions: As in `replace`.
        heads: As in `replace`.

    Raises:
        ValueError: If the dictionary has no such feature.
    """
    if not isinstance(direction, Tensor):
        directions, feature = direction
        _need_feature(directions, feature)
        direction = directions.W_dec[feature].detach()
    scale = strength.to(direction)[..., None] if isinstance(strength, Tensor) else strength
    step = scale * direction
    return Edit(lambda rows: rows.values + rows.spread("direction", step), positions, heads)


def project_out(directions: Float[Tensor, "*shape"], *, positions: Positions | None = None) -> Edit:
    """Take away what lies in the span of some directions.

    Args:
        directions: `[d]`, `[k, d]`, or `[b, k, d]` for a span an example; of any length, dependent ones allowed.
        positions: As in `replace`.

    Raises:
        ValueError: If a span holds nothing but zero.
    """
    basis = _orthonormal(directions if directions.ndim > 1 else directions[None])

    def change(rows: Rows) -> Tensor:
        rows.need_width("directions", basis.shape[-1])
        # Half precision would leave a part of the span behind.
        x = rows.values.to(torch.promote_types(rows.values.dtype, torch.float32))
        span = basis.to(x)
        if basis.ndim == 2:
            return x - (x @ span.T) @ span
        if len(basis) != rows.shape[0]:
            raise ValueError(
                f"directions has {len(basis)} spans, but {rows.place} holds {rows.shape[0]} examples: "
                "give one for each, or [k, d] for all."
            )
        own = span[rows.example]
        return x - torch.einsum("nkd,ne,nke->nd", own, x, own)

    return Edit(change, positions)


def scale_latent(
    directions: Directions,
    features: int | Sequence[int],
    factor: float | Float[Tensor, " f"],
    *,
    positions: Positions | None = None,
) -> Edit:
    """Multiply some latents by a factor; what the dictionary does not reconstruct stays as it is.

    Args:
        directions: The dictionary.
        features: Which latents.
        factor: One for all, or one a feature: 1 changes nothing, 0 ablates. A latent that is not active stays so.
        positions: As in `replace`.

    Raises:
        ValueError: If the dictionary has no such feature.
    """
    chosen = [features] if isinstance(features, int) else list(features)
    _need_feature(directions, *chosen)
    scale = torch.ones(directions.d_sae)
    scale[chosen] = torch.as_tensor(factor, dtype=scale.dtype, device=scale.device)

    def change(rows: Rows) -> Tensor:
        for width in (directions.d_in, directions.W_dec.shape[1]):
            rows.need_width("directions", width)
        latents = directions.encode(rows.values.to(directions.W_dec))
        scaled = latents.with_values(latents.values * scale.to(latents.values)[latents.indices])
        return rows.values + (directions.decode(scaled) - directions.decode(latents)).to(rows.values)

    return Edit(change, positions)


def _need_feature(directions: Directions, *features: int) -> None:
    for feature in features:
        if not 0 <= feature < directions.d_sae:
            raise ValueError(
                f"feature is {feature}, but the dictionary has {directions.d_sae}: "
                f"choose from 0..{directions.d_sae - 1}."
            )


def _orthonormal(directions: Float[Tensor, "*b k d"]) -> Float[Tensor, "*b r d"]:
    """An orthonormal basis of each span; rows of zeros stand where directions depend on each other."""
    _, sizes, basis = torch.linalg.svd(directions.double(), full_matrices=False)
    if not (sizes > 0).any(dim=-1).all():
        raise ValueError("directions are all zero, so there is nothing to project out: give one that is not.")
    smallest = sizes.amax(dim=-1, keepdim=True) * max(directions.shape[-2:]) * torch.finfo(directions.dtype).eps
    return basis * (sizes > smallest)[..., None]
