"""RankMe, the effective rank of a set of rows (Garrido et al. 2023, https://arxiv.org/abs/2210.02885)."""

import torch
from jaxtyping import Float
from torch import Tensor

_EPSILON = 1e-7  # The paper's: it keeps the logarithm finite where a singular value is 0.


def singular_values(gram: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
    """Singular values of rows `X`, largest first, from `X.T @ X` (or `X @ X.T`) summed in float64.

    Args:
        gram: The symmetric product; what rounding made negative counts as 0.
    """
    return torch.linalg.eigvalsh(gram.double()).flip(0).clamp_min(0).sqrt()


def rank_me(spectrum: Float[Tensor, " m"]) -> float:
    """How many directions the rows use: the exponential of the entropy of their singular values' shares.

    Args:
        spectrum: Singular values, of the rows as they are (as in the paper) or less their mean. A large mean is one
            direction that outweighs all others, so the two differ: say which one was taken.

    Returns:
        From 1 (one direction) to the number of singular values (all alike); 0 where all rows are 0.
    """
    total = spectrum.sum()
    if total == 0:
        return 0.0
    shares = spectrum / total + _EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))
