"""SAEs over several sites at once (crosscoders: Lindsey et al. 2024, https://transformer-circuits.pub/2024/crosscoders).

A crosscoder is an SAE on `interp.concatenated(stores)`: the sum of the sites' encoders is the product of their
concatenation, and a latent's decoder row holds its direction at every site. What is its own is how norms are counted.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def by_site(rows: Float[Tensor, "n d_out"], widths: Sequence[int]) -> tuple[Float[Tensor, "n _"], ...]:
    """The parts of rows (activations, decoder rows) at each site, as views.

    Args:
        rows: Concatenated rows.
        widths: Width of each site, as `ConcatenatedStore.widths`.

    Raises:
        ValueError: If the widths do not add up to that of the rows.
    """
    if sum(widths) != rows.shape[1]:
        raise ValueError(
            f"widths are {list(widths)}, which add up to {sum(widths)}, but the rows have {rows.shape[1]}: "
            "give the widths of the concatenated store."
        )
    return rows.split(list(widths), dim=1)


def site_norms(W_dec: Float[Tensor, "d_sae d_out"], widths: Sequence[int]) -> Float[Tensor, "s d_sae"]:
    """Norm of each latent's decoder row at each site, with autograd.

    Args:
        W_dec: Decoder of concatenated sites.
        widths: Width of each site.

    Raises:
        ValueError: If the widths do not add up to that of the decoder.
    """
    return torch.stack([part.norm(dim=1) for part in by_site(W_dec, widths)])


def relative_norms(W_dec: Float[Tensor, "d_sae d_out"], widths: Sequence[int]) -> Float[Tensor, "s d_sae"]:
    """Each site's part of the sum of a latent's norms: 1 at one site is a latent of that site alone.

    Args:
        W_dec: Decoder of concatenated sites.
        widths: Width of each site.

    Raises:
        ValueError: If the widths do not add up to that of the decoder.
    """
    norms = site_norms(W_dec, widths)
    return norms / norms.sum(dim=0)
