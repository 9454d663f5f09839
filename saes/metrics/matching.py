"""Directions of one set found again in another: cosines, and the best pairing one to one (Kuhn 1955)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 1024


@dataclass(frozen=True)
class Matching:
    """Pairs of rows, each row in at most one.

    Args:
        first: Row of the first set.
        second: Row of the second.
        cosine: Theirs.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    cosine: Float[Tensor, " pairs"]


def cosines(first: Float[Tensor, "m d"], second: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    """Cosine of each row of one with each of the other, in float32 on the CPU; 0 where a row has length 0."""
    rows, others = (torch.nn.functional.normalize(part.detach().cpu().double(), dim=1) for part in (first, second))
    return torch.cat([(part @ others.T).float() for part in rows.split(_CHUNK)])


def matched(cosine: Float[Tensor, "m k"]) -> Matching:
    """The pairing whose cosines have the largest sum; the larger set keeps rows without a partner.

    Holds all cosines; 1,000 rows take a second, 4,000 ten.
    """
    from scipy.optimize import linear_sum_assignment

    first, second = map(torch.from_numpy, linear_sum_assignment(cosine.numpy(), maximize=True))
    return Matching(first, second, cosine[first, second])


def mean(totals: Float[Tensor, "*resamples 2"]) -> Float[Tensor, "*resamples"]:
    """A sum over a number of things: what `bootstrap` takes for means."""
    return totals[..., 0] / totals[..., 1]


def counted(values: Tensor) -> Float[Tensor, "n 2"]:
    """Values beside ones, as `mean` takes them."""
    values = values.double()
    return torch.stack([values, torch.ones_like(values)], dim=1)
