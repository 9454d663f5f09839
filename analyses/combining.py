"""Maps of several layers as one (Rebuffi et al. 2020, https://arxiv.org/abs/2004.02866)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.maps import Maps


def combine(
    maps: Maps,
    method: str | None = None,
    *,
    how: Literal["product", "sum"] = "product",
    weights: Sequence[float] | Literal["uniform", "linear", "spread"] = "uniform",
    size: tuple[int, ...] | None = None,
) -> Float[Tensor, "b ..."]:
    """Join the maps of all sites, grown to one size and scaled to 0..1 each.

    The product is the weighted geometric mean, which keeps what all layers agree on: of maps that are alike it is that
    map. The sum is the weighted mean.

    Args:
        maps: Maps of several sites.
        method: Which method's; may be left out where there is one.
        how: `product` or `sum`.
        weights: One for each site, in order (the accuracy of a probe there, say); or `uniform`, `linear` (1, 2, 3, ...
            with the depth), or `spread`, by the standard deviation of each example's map.
        size: As in `Maps.upsampled`.

    Returns:
        One map an example (and feature), from 0 to 1.

    Raises:
        ValueError: If there is no such method, or there are not as many weights as sites, or one is negative or all 0.
    """
    if method is None and len(maps.methods) > 1:
        raise ValueError(f"method is None, but maps are of {', '.join(maps.methods)}: name one.")
    name = method or maps.methods[0]
    if name not in maps.methods:
        raise ValueError(f"method is {name!r}, but maps are of {', '.join(maps.methods)}: name one of these.")
    shown = maps.upsampled(size).normalised()
    layers = torch.stack([shown[site, name] for site in maps.sites])
    of_layers = _weights(layers, weights, lead=2 if maps.features is None else 3)
    shares = of_layers / of_layers.sum(dim=0, keepdim=True)
    return (layers**shares).prod(dim=0) if how == "product" else (shares * layers).sum(dim=0)


def _weights(layers: Float[Tensor, "l b ..."], weights: Sequence[float] | str, *, lead: int) -> Float[Tensor, "l ..."]:
    """One weight a layer, or one a layer and example, of as many axes as the maps."""
    n = len(layers)
    if weights == "spread":
        flat = layers.flatten(lead).std(dim=-1, correction=0)
        return torch.where((flat > 0).any(dim=0), flat, 1).view(*flat.shape, *[1] * (layers.ndim - lead))
    named = {"uniform": [1.0] * n, "linear": [float(i + 1) for i in range(n)]}
    given = named.get(weights, weights) if isinstance(weights, str) else list(weights)
    if isinstance(given, str):
        raise ValueError(
            f"weights is {weights!r}, but they are 'uniform', 'linear', 'spread' or one a site: choose one."
        )
    if len(given) != n or min(given) < 0 or not any(given):
        raise ValueError(
            f"weights are {given} for {n} sites, but each site has one of at least 0, not all 0: give them."
        )
    return torch.tensor(given).to(layers).view(n, *[1] * (layers.ndim - 1))
