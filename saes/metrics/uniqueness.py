"""Uniqueness: how far latents stand for different true features (as in the synthetic evaluations of SAELens)."""

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.matching import cosines, counted, mean


def uniqueness(
    features: Float[Tensor, "m d_in"], W_dec: Float[Tensor, "d_sae d_in"], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """True features that are the nearest, by |cosine|, of some latent, over the number of latents.

    1 where no two latents have the same nearest feature. At most m / d_sae, so compare dictionaries of one width.
    The interval, which is ours, is over latents: each of t latents of one feature counts 1 / t, whatever is drawn.

    Args:
        features: The true directions, of any length and sign.
        W_dec: The directions found, of any length and sign.
        resamples: Draws of the bootstrap; 0 for no interval.
        seed: Names the draws.
    """
    nearest = cosines(W_dec, features).abs().argmax(dim=1)
    sharing = torch.bincount(nearest, minlength=len(features))[nearest]
    return bootstrap(counted(1 / sharing.double()), mean, resamples=resamples, seed=seed)
