"""TokenCut (Wang et al. 2022, https://arxiv.org/abs/2202.11539)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from analyses.segmentation.base import Objects, Segmenter, alone, component, foremost

_ALIKE = 1e-10  # eigenvalues nearer than this have no eigenvectors of their own
_OUTSIDE = -2.0  # below every eigenvalue of a normalised affinity


@dataclass(frozen=True)
class TokenCut(Segmenter):
    """The normalised cut of a graph of positions, joined where the cosine of their vectors is above `tau`.

    The graph is split at the mean of the second eigenvector `y` of `(D - A) y = lambda D y`. The object is the part
    of one side that is connected in the grid with the position of the largest `|y|`. The saliency is `y`, with the
    sign under which that position is positive, of length 1 in the measure of `D`; 0 at positions of earlier objects.
    Details: `eigenvalue`, the cost of the cut (0 to 2), and `eigengap`, the distance to the next one: where it is 0
    the cut is undetermined, and no object is given. Eigenvectors are computed in float64, time is cubic in positions.

    Args:
        tau: Cosine above which two positions are joined.
        eps: Affinity of those that are not.
        weighted: Join with the cosine rather than with 1.
        center: Subtract the mean over the example's positions first: where all positions share a direction, their
            cosines tell of nothing else.
        objects: How many are sought, each in the graph of the positions that are left (MaskCut, Wang et al. 2023,
            https://arxiv.org/abs/2301.11320).

    Raises:
        ValueError: If `tau`, `eps` or `objects` is out of range.
    """

    tau: float = 0.2
    eps: float = 1e-5
    weighted: bool = False
    center: bool = False
    objects: int = 1

    def __post_init__(self) -> None:
        if not -1 <= self.tau < 1 or (self.weighted and self.tau < 0):
            raise ValueError(f"tau is {self.tau}, but is a cosine under 1, where weighted at least 0: give .2.")
        if not 0 < self.eps < 1:
            raise ValueError(f"eps is {self.eps}, but keeps the graph in one piece: give a number in 0..1, as 1e-5.")
        if self.objects < 1:
            raise ValueError(f"objects is {self.objects}, but at least one is sought: give 1 or more.")

    def segments(self, acts: Float[Tensor, "b *grid d"]) -> Objects:
        """The objects of activations that are finite."""
        affinity = self.affinity(acts.flatten(1, -2))
        left = torch.ones_like(affinity[..., 0], dtype=torch.bool)
        parts = []
        for _ in range(self.objects):
            parts.append(_cut(affinity, left, acts))
            left = left & ~parts[-1].masks.view_as(left)
        masks, saliency = (torch.cat([getattr(p, name) for p in parts], dim=1) for name in ("masks", "saliency"))
        details = {name: torch.cat([part.details[name] for part in parts], dim=1) for name in parts[0].details}
        return Objects(masks, saliency, details)

    def affinity(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b n n"]:
        """How strongly positions are joined.

        Args:
            rows: A vector a position.
        """
        rows = rows.double()
        unit = normalize(rows - rows.mean(dim=1, keepdim=True) if self.center else rows, dim=-1)
        cosine = unit @ unit.mT
        joined = cosine if self.weighted else torch.ones_like(cosine)
        return joined.where(cosine > self.tau, self.eps)


def _cut(affinity: Float[Tensor, "b n n"], left: Bool[Tensor, "b n"], acts: Tensor) -> Objects:
    """The object among the positions that are left."""
    values, y = eigenvectors(affinity, left)
    gap = values[:, 1] - values[:, 2]
    cut = (left.sum(dim=1) > 1) & (gap > _ALIKE)
    seeds = foremost(y.abs())
    y = y * y.gather(1, seeds[:, None]).sign()
    mean = y.sum(dim=1, keepdim=True) / left.sum(dim=1, keepdim=True).clamp(min=1)
    # What is at the mean but for rounding must not go with the eigenvector's sign.
    side = (y > mean + 1e-9 * y.abs().amax(dim=1, keepdim=True)) & left
    masks = component(side, seeds, tuple(acts.shape[1:-1])) & cut[:, None]
    details = {"eigenvalue": (1 - values[:, 1]).where(cut, torch.nan), "eigengap": gap.clamp(min=0).where(cut, 0)}
    return alone(masks, y.where(cut[:, None], 0), details, acts)


def eigenvectors(
    affinity: Float[Tensor, "b n n"], left: Bool[Tensor, "b n"]
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b n"]]:
    """The three largest eigenvalues of `D^-1/2 A D^-1/2`, and the second generalised eigenvector `D^-1/2 z`.

    Args:
        affinity: Of all positions.
        left: The positions of the graph; the vector is 0 at others.
    """
    both = left[:, :, None] & left[:, None, :]
    affinity = affinity.where(both, 0)
    scale = affinity.sum(dim=-1).rsqrt().where(left, 0)
    matrix = scale[:, :, None] * affinity * scale[:, None, :]
    # Positions that are gone get an eigenvalue of their own: the largest ones are those of the graph that is left.
    matrix = matrix + torch.diag_embed(torch.where(left, 0.0, _OUTSIDE).to(matrix))
    values, vectors = torch.linalg.eigh(matrix)
    largest = torch.nn.functional.pad(values, (2, 0), value=_OUTSIDE).flip(-1)[:, :3]
    return largest, vectors[..., -2 if vectors.shape[-1] > 1 else -1] * scale
