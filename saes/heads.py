"""SAEs on the outputs of all attention heads at once (Kissane et al. 2024, https://arxiv.org/abs/2406.17759).

Such an SAE is any method at a site with heads ("blocks.3.attn.hook_z#8"): a row is the concatenation of the heads'
outputs, and so is a latent's decoder row.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import Directions


def by_head(rows: Float[Tensor, "n d"], heads: int) -> Float[Tensor, "n heads d_head"]:
    """Rows of concatenated heads (activations, encoder or decoder rows), head by head, as a view.

    Args:
        rows: Concatenated rows.
        heads: How many.

    Raises:
        ValueError: If the width is no multiple of the number of heads.
    """
    if heads < 1 or rows.shape[1] % heads:
        raise ValueError(
            f"heads is {heads}, but rows of width {rows.shape[1]} are no {heads} heads of equal width: give the number "
            "of the site, which its name ends with."
        )
    return rows.unflatten(1, (heads, -1))


def head_weights(directions: Directions, heads: int | None = None) -> Float[Tensor, "d_sae heads"]:
    """How much of each latent every head writes: norms of the parts of its decoder row, which add up to 1.

    Args:
        directions: An SAE at a site with heads.
        heads: How many; None for what the site says.

    Raises:
        ValueError: If the site names no heads and none are given, or the width is no multiple of their number.
    """
    site = directions.site
    found = heads if heads is not None else None if site is None else site.heads
    if found is None:
        raise ValueError(
            f"heads is not given, and the site of the directions is {site}, which names none: give heads, or harvest a "
            "site of heads such as blocks.0.attn.hook_z#12."
        )
    norms = by_head(directions.W_dec.detach(), found).norm(dim=2)
    return norms / norms.sum(dim=1, keepdim=True)


def head_pre_acts(
    W_enc: Float[Tensor, "d_in d_sae"], x: Float[Tensor, "n d_in"], feature: int, heads: int
) -> Float[Tensor, "n heads"]:
    """What each head adds to a latent's pre-activation: with the bias `b_enc - b_in @ W_enc` the parts add up to it.

    Args:
        W_enc: Encoder.
        x: Activations.
        feature: Which latent.
        heads: How many heads a row has.

    Raises:
        ValueError: If the width is no multiple of the number of heads.
    """
    return torch.einsum("nhd,hd->nh", by_head(x, heads), by_head(W_enc.T[feature : feature + 1], heads)[0])
