"""Recovered: the share of a known dictionary that was found (Sharkey et al. 2022)."""

from jaxtyping import Float
from torch import Tensor

from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.matching import cosines, counted, mean


def recovered(
    features: Float[Tensor, "m d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    *,
    threshold: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Share of the true features that have a row at this cosine or above, with an interval over features.

    As in `mmcs`, two features may share a row, and a row of the opposite sign does not count.

    Args:
        features: The true directions, of any length.
        W_dec: The directions found, of any length.
        threshold: Smallest cosine that counts.
        resamples: Draws of the bootstrap; 0 for no interval.
        seed: Names the draws.
    """
    best = cosines(features, W_dec).amax(dim=1)
    return bootstrap(counted(best >= threshold), mean, resamples=resamples, seed=seed)
