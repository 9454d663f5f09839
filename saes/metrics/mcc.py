"""MCC: true and found directions paired one to one (Song et al. 2025, https://arxiv.org/abs/2505.20254)."""

from jaxtyping import Float
from torch import Tensor

from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.matching import cosines, counted, matched, mean


def mcc(
    features: Float[Tensor, "m d_in"], W_dec: Float[Tensor, "d_sae d_in"], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean |cosine| over the pairs of the best one-to-one pairing, with an interval over pairs.

    1 where each true feature has a row of its own. As in the field there are min(m, d_sae) pairs: features left
    without a partner by a dictionary that is too small do not count here, but in `recovered`. A random dictionary is
    far above 0 in few dimensions: compare with one.

    Args:
        features: The true directions, of any length and sign.
        W_dec: The directions found, of any length and sign.
        resamples: Draws of the bootstrap, the pairing kept; 0 for no interval.
        seed: Names the draws.
    """
    pairs = matched(cosines(features, W_dec).abs())
    return bootstrap(counted(pairs.cosine), mean, resamples=resamples, seed=seed)
