"""NormGrad (Rebuffi et al. 2020, https://arxiv.org/abs/2004.02866)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import LocalMethod, checked
from analyses.weight_terms import AGGREGATES, Aggregate, Sums, Values, Windows, aggregated

Identity = Literal["bias", "scaling", "conv1x1", "conv3x3", "depthwise3x3"]


@dataclass(frozen=True)
class NormGrad(LocalMethod):
    """At each position, the size of its part in the gradient of a layer that does nothing, put after the activations.

    The layer's weights are its identity; the gradient of its weights is a sum over positions, and a map shows the size
    of each term. For `conv1x1`, a term is the outer product of gradient and activation, and its norm the product of
    their norms. No outer product is ever made: each form costs O(d) a position. Windows are three positions wide along
    every axis of the grid, with zeros outside of it.

    Args:
        identity: The layer: a bias (the gradient itself), a factor a channel (gradient times activation), a convolution
            of one position or of three a side, or the latter for each channel alone.
        aggregate: What is made of a term: its Euclidean norm, that of its positive part, its sum or its largest entry.
    """

    identity: Identity = "conv1x1"
    aggregate: Aggregate = "norm"

    def __post_init__(self) -> None:
        for name, known in (("identity", _IDENTITIES), ("aggregate", AGGREGATES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but NormGrad knows {', '.join(known)}: choose one."
                )

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps."""
        return aggregated(checked(self, acts, grads), _IDENTITIES[self.identity](acts), self.aggregate)


@dataclass(frozen=True)
class _Around(Windows):
    """The activations around each position, of its channel or of all."""

    acts: Values
    wide: bool = False
    shared: bool = False

    def sums(self, values: Values) -> Sums:
        """The sum over each window of one value an activation; one channel where windows are shared."""
        if self.shared:
            values = values.sum(dim=-1, keepdim=True)
        return _over_neighbours(values, torch.add) if self.wide else values

    def largest(self, sign: int) -> Sums:
        """The largest entry of each window, of the activations times the sign, and times the sign again."""
        values = sign * self.acts
        if self.shared:
            values = values.amax(dim=-1, keepdim=True)
        return sign * (_over_neighbours(values, torch.maximum) if self.wide else values)


def _over_neighbours(values: Values, join: Callable[[Tensor, Tensor], Tensor]) -> Values:
    """Join each position with both neighbours along every axis of the grid in turn; zeros lie outside of it."""
    for axis in range(1, values.ndim - 1):
        edge = torch.zeros_like(values.narrow(axis, 0, 1))
        padded, size = torch.cat([edge, values, edge], dim=axis), values.shape[axis]
        values = join(join(padded.narrow(axis, 0, size), values), padded.narrow(axis, 2, size))
    return values


_IDENTITIES: dict[str, Callable[[Values], _Around]] = {
    "bias": lambda acts: _Around(torch.ones_like(acts[..., :1])),
    "scaling": lambda acts: _Around(acts),
    "conv1x1": lambda acts: _Around(acts, shared=True),
    "conv3x3": lambda acts: _Around(acts, wide=True, shared=True),
    "depthwise3x3": lambda acts: _Around(acts, wide=True),
}
