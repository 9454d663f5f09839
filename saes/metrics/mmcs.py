"""MMCS: how much of a known dictionary was found (Sharkey et al. 2022, https://www.lesswrong.com/posts/z6QQJbtpkEAX3Aojj)."""

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK = 1024


def mmcs(features: Float[Tensor, "m d_in"], W_dec: Float[Tensor, "d_sae d_in"]) -> float:
    """Mean over the true features of the best cosine with a decoder row.

    1 where each true feature has a row of its direction; rows that match none cost nothing. A random dictionary is
    far above 0 in few dimensions: compare with one.

    Args:
        features: The true directions, of any length.
        W_dec: The directions found, of any length; one of length 0 has cosine 0 with everything.
    """
    found = torch.nn.functional.normalize(W_dec.detach().double(), dim=1)
    true = torch.nn.functional.normalize(features.to(found), dim=1)
    return float(torch.cat([(part @ found.T).amax(dim=1) for part in true.split(_CHUNK)]).mean())
