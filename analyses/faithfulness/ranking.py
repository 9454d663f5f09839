"""How alike two maps rank positions (Spearman 1904, https://doi.org/10.2307/1412159)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rank_correlation(
    first: Float[Tensor, " b *grid"], second: Float[Tensor, " b *grid"], kept: Bool[Tensor, " b *grid"]
) -> Float[Tensor, " b"]:
    """Spearman's rank correlation of each pair of maps, ties sharing their mean rank.

    Of two constant maps it is 1, since nothing changed, and 0 where one alone is constant.

    Args:
        first: Some maps.
        second: Others of the same positions.
        kept: Which positions count.
    """
    pairs = zip(first.flatten(1), second.flatten(1), kept.flatten(1), strict=True)
    return torch.stack([_of_pair(a[keep], b[keep]) for a, b, keep in pairs]).to(first)


def _of_pair(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    ranks = torch.stack([_ranks(a), _ranks(b)])
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    lengths = ranks.norm(dim=1)
    if bool((lengths == 0).any()):
        return (lengths == 0).all().double()
    return (ranks[0] @ ranks[1]) / lengths.prod()


def _ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    ordered = values.sort().values
    below, upto = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + upto - 1).double() / 2
