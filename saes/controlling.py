"""Bringing L0 to a target, for methods whose L0 is not fixed by construction.

The excess of a batch is `log(L0 / target)`. Its sum is the logarithm of a factor on the penalties that make codes
sparse (integral control: what is right for the target is found, whatever the data). A method that has a threshold of
its own moves it by the excess at once (`SAE.press`), so that L0 stays right where the learning rate has fallen to 0 and
penalties move nothing any more.
"""

import torch
from jaxtyping import Float
from torch import Tensor

RATE = 0.01
"""Part of the excess that goes into the logarithm of the penalties' factor, each step."""


def excess(l0: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """How far L0 is above its target, as a logarithm in [-1, 1]: a batch in which nothing fires says no more."""
    return torch.log(l0.clamp(min=1e-3 * target) / target).clamp(-1.0, 1.0)
