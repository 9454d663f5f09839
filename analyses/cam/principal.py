"""The first principal component of the positions of each example, and the choice of its sign."""

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import Details, LocalMethod


class UndeterminedSign(UserWarning):
    """A principal component whose sign nothing decides: its map may as well be its negative."""


@dataclass(frozen=True)
class Component:
    """The positions of each example along its first principal direction, its sign not yet chosen.

    Args:
        scores: Each position's coordinate: `O v` of the leading right singular vector.
        gap: Largest eigenvalue of the Gram matrix over the next, to a twentieth; infinite where there is one alone, 1
            where all are 0.
    """

    scores: Float[Tensor, "b n"]
    gap: Float[Tensor, " b"]

    def along(self, reference: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The coordinates with the sign that makes their inner product with a reference positive."""
        return torch.where((self.scores * reference).sum(dim=1, keepdim=True) < 0, -self.scores, self.scores)

    def maps(
        self, reference: Float[Tensor, "b n"], tolerance: float, grid: tuple[int, ...]
    ) -> tuple[Float[Tensor, " b *grid"], Details]:
        """Maps that point along a reference, the gap, and where the reference decided the sign.

        Args:
            reference: What the maps should point along.
            tolerance: The smallest cosine that decides, either way.
            grid: The positions' layout.
        """
        maps = self.along(reference)
        sizes = maps.norm(dim=1) * reference.norm(dim=1)
        # A map of zeros has no sign to choose.
        determined = ((maps * reference).sum(dim=1) > tolerance * sizes) | (self.scores == 0).all(dim=1)
        if not determined.all():
            warnings.warn(
                f"the sign of {int((~determined).sum())} of {len(maps)} maps is undetermined: nothing tells such a map "
                "from its negative. Look at both, or take the sign from a gradient.",
                UndeterminedSign,
                stacklevel=4,
            )
        return maps.reshape(len(maps), *grid), {"gap": self.gap, "determined": determined.to(maps.dtype)}


@dataclass(frozen=True)
class Principal(LocalMethod):
    """A map that is the positions' first principal component; a method says of what, and what its sign goes along with.

    Args:
        center: Subtract each channel's mean over the positions, as pytorch-grad-cam does; the paper does not.
        tolerance: Cosine with what gives the sign, below which the sign counts as undetermined.
    """

    center: bool = False
    tolerance: float = 1e-3
    one_channel: ClassVar[bool] = False

    @abstractmethod
    def rows(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None
    ) -> Float[Tensor, "b n d"]:
        """What the component is taken of, not centred."""

    @abstractmethod
    def reference(
        self, rows: Float[Tensor, "b n d"], acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None
    ) -> Float[Tensor, "b n"]:
        """What the map should point along, not centred."""

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps. Warns where a sign is undetermined."""
        return self.measured(acts, grads)[0]

    def measured(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps; the largest eigenvalue over the next (`gap`); and 1 where the sign is `determined`."""
        rows = self.rows(acts, grads)
        reference = self.reference(rows, acts, grads)
        if self.center:
            rows, reference = (part - part.mean(dim=1, keepdim=True) for part in (rows, reference))
        return first_component(rows).maps(reference, self.tolerance, tuple(acts.shape[1:-1]))


def first_component(values: Float[Tensor, "b n d"]) -> Component:
    """The first principal component of the rows of each example, as they are: centre them before if they should be."""
    n, d = values.shape[1:]
    gram = values @ values.mT if n <= d else values.mT @ values
    first, second, leading = _leading(gram)
    scores = leading * first.sqrt()[:, None] if n <= d else (values @ leading[..., None]).squeeze(-1)
    return Component(scores, torch.where(first > 0, first / second, torch.ones_like(first)))


Leading = tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, "b m"]]


def _leading(gram: Float[Tensor, "b m m"]) -> Leading:
    """The two largest eigenvalues of each matrix, and the eigenvector of the largest.

    By subspace iteration, a sixth of the time of all eigenvectors at 196 x 196; where that has not converged to
    rounding (leading eigenvalues close together), by all of them. Which way is taken is each example's own.
    """
    if gram.shape[-1] <= 4 * _BLOCK:
        return _all_of(gram)
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(gram.shape[-1], _BLOCK, generator=draw, dtype=torch.float64).to(gram)
    start[:, 0] = 1  # non-negative activations have most of their leading direction here
    basis = torch.linalg.qr(gram @ start).Q
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(gram @ (gram @ basis)).Q
    sizes, mix = torch.linalg.eigh(basis.mT @ (gram @ basis))
    sizes, ritz = sizes[:, -2:].clamp(min=0), basis @ mix[..., -2:]
    residual = (gram @ ritz - sizes[:, None] * ritz).norm(dim=1)
    first, second = sizes[:, 1], sizes[:, 0]
    rounding = 64 * torch.finfo(gram.dtype).eps
    # An eigenvector is off by its residual over its distance to the next eigenvalue, an eigenvalue by less than its own
    # residual. Of the second nothing is asked but the gap, where twentieths do not matter.
    sure = (residual[:, 1] <= rounding * (first - second)) & (residual[:, 0] <= 0.05 * second)
    if not sure.all():
        rest = _all_of(gram[~sure])
        first, second, leading = (part.clone() for part in (first, second, ritz[..., 1]))
        first[~sure], second[~sure], leading[~sure] = rest
        return first, second, leading
    return first, second, ritz[..., 1]


_BLOCK, _ROUNDS = 4, 12


def _all_of(gram: Float[Tensor, "b m m"]) -> Leading:
    sizes, vectors = torch.linalg.eigh(gram)
    sizes = sizes.clamp(min=0)
    second = sizes[:, -2] if sizes.shape[1] > 1 else torch.zeros_like(sizes[:, -1])
    return sizes[:, -1], second, vectors[..., -1]
