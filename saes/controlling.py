"""Bringing L0 to a target, for methods whose L0 is not fixed by construction.

The excess of a batch is `log(L0 / target)`. Its sum is the logarithm of a factor on the penalties that make codes
sparse (integral control: what is right for the target is found, whatever the data). A method that has a threshold of
its own moves it by the excess at once (`SAE.press`), so that L0 stays right where the learning rate has fallen to 0 and
penalties move nothing any more.
"""

import torch
from jaxtyping import Float
from torch import Tensor

RATE = 30.0
"""Excess that a whole run sums into the logarithm of the penalties' factor: short runs have to find it sooner."""


def rate(steps: int) -> float:
    """Part of the excess that is summed at each of so many steps: 0.06 of a run of 500, never less than 0.001."""
    return min(0.1, max(0.001, RATE / steps))


def excess(l0: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """How far L0 is above its target, as a logarithm in [-1, 1]: a batch in which nothing fires says no more."""
    return torch.log(l0.clamp(min=1e-3 * target) / target).clamp(-1.0, 1.0)
