"""Stability: what dictionaries of several seeds share (Paulo and Belrose 2025, https://arxiv.org/abs/2501.16615)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.base import Findings
from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.matching import cosines, counted, matched, mean


@dataclass(frozen=True)
class Stability(Findings):
    """What dictionaries of several seeds share.

    Args:
        cosine: Mean cosine of matched rows; interval over latents, the dictionaries taken as given.
        shared: Share of matched rows whose cosine reaches the threshold; interval over latents.
        cosine_of_pairs: The same mean, with an interval over pairs of dictionaries: what other seeds would give.
        shared_of_pairs: The share likewise.
        pairs: Mean cosine and share of each pair of dictionaries, in order (0, 1), (0, 2), ..., (1, 2), ...
        threshold: Cosine from which a latent counts as shared.
        matches: Cosine of each latent of a pair's first dictionary with its partner.
    """

    cosine: Interval
    shared: Interval
    cosine_of_pairs: Interval
    shared_of_pairs: Interval
    pairs: tuple[tuple[float, float], ...]
    threshold: float
    matches: Float[Tensor, "pairs d_sae"] = field(repr=False)


def stability(
    dictionaries: Sequence[Float[Tensor, "d_sae d_in"]],
    *,
    threshold: float = 0.7,
    resamples: int = 1000,
    seed: int = 0,
) -> Stability:
    """Pair the decoder rows of each two dictionaries one to one, so that their cosines have the largest sum.

    Rows are compared with their sign. Latents that never fire are rows like others: leave them out beforehand where
    they should not count. Pairs that share a dictionary are drawn as if they did not, so intervals over pairs are too
    narrow where seeds are few; with two dictionaries there is none.

    Args:
        dictionaries: Decoders (`W_dec`) of equal shape, of any row lengths.
        threshold: Cosine from which a latent counts as shared.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.

    Raises:
        ValueError: If there are fewer than two, or their shapes differ.
    """
    shapes = {tuple(W_dec.shape) for W_dec in dictionaries}
    if len(dictionaries) < 2 or len(shapes) > 1:
        raise ValueError(
            f"dictionaries are {len(dictionaries)} of shapes {sorted(shapes)}, but stability compares at least two of "
            "one shape: give SAEs that differ in their seed."
        )
    couples = itertools.combinations(dictionaries, 2)
    matches = torch.stack([matched(cosines(*couple)).cosine for couple in couples])
    hits = (matches >= threshold).double()

    def over(values: Tensor) -> Interval:
        return bootstrap(counted(values), mean, resamples=resamples, seed=seed)

    means, shares = matches.mean(dim=1), hits.mean(dim=1)
    # A latent of the first dictionary is one draw, with all its partners.
    of_latents = over(matches.mean(dim=0)), over(hits.mean(dim=0))
    pairs = tuple(zip(means.tolist(), shares.tolist(), strict=True))
    return Stability(*of_latents, over(means), over(shares), pairs, threshold, matches)
