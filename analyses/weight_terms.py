"""The size of each position's part in the gradient of a layer's weights, which is never written out.

A part is the outer product of the gradient at a position with the window of activations that the weights see there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Aggregate = Literal["norm", "filter_norm", "sum", "max"]
Values = Float[Tensor, "b *grid d"]
Sums = Float[Tensor, "b *grid e"]  # a channel each, or one for all
Maps = Float[Tensor, " b *grid"]


class Windows(ABC):
    """What each position's gradient is multiplied with.

    A sum or an extreme of products of g with the entries of a window needs that sum or extreme of the window alone.
    """

    acts: Tensor
    """The activations that windows are made of."""

    @abstractmethod
    def sums(self, values: Tensor) -> Sums:
        """The sum over each window of one value an activation; one channel where windows are shared.

        Args:
            values: Of the shape of `acts`.
        """

    @abstractmethod
    def largest(self, sign: int) -> Sums:
        """The largest entry of each window, of the activations times the sign, and times the sign again."""


def aggregated(grads: Values, windows: Windows, aggregate: Aggregate) -> Maps:
    """What is made of each position's part: its norm, that of its positive entries, its sum or its largest entry.

    Args:
        grads: The gradient where the windows are read.
        windows: The windows.
        aggregate: Which of these.
    """
    return AGGREGATES[aggregate](grads, windows)


def _norm(grads: Values, windows: Windows) -> Maps:
    return (grads.square() * windows.sums(windows.acts.square())).sum(dim=-1).sqrt()


def _filter_norm(grads: Values, windows: Windows) -> Maps:
    """A product is positive where both signs are the same."""
    acts = windows.acts
    positive = grads.relu().square() * windows.sums(acts.relu().square())
    return (positive + (-grads).relu().square() * windows.sums((-acts).relu().square())).sum(dim=-1).sqrt()


def _sum(grads: Values, windows: Windows) -> Maps:
    return (grads * windows.sums(windows.acts)).sum(dim=-1)


def _max(grads: Values, windows: Windows) -> Maps:
    """A product of two ranges is largest at one of their four corners."""
    corners = torch.maximum(grads * windows.largest(1), grads * windows.largest(-1))
    return corners.amax(dim=-1)


AGGREGATES: Mapping[str, Callable[[Values, Windows], Maps]] = {
    "norm": _norm,
    "filter_norm": _filter_norm,
    "sum": _sum,
    "max": _max,
}
