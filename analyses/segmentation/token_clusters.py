"""Clusters of tokens by cosine: spherical k-means (Dhillon and Modha 2001, https://doi.org/10.1023/A:1007612920971)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from analyses.segmentation.base import Objects, Segmenter, foremost


@dataclass(frozen=True)
class TokenClusters(Segmenter):
    """Each example's positions in clusters of like directions, the largest first: parts rather than one object.

    The first centre is the position nearest to the mean direction, each further one the position farthest from all
    centres so far (Gonzalez 1985), so that nothing is drawn. The saliency is the cosine with the cluster's own centre
    less that with the nearest other one: positive inside. Detail: `tightness`, the mean cosine of its positions with
    the centre. Examples with fewer directions than clusters leave the last ones empty; where all positions are alike,
    no cluster is given.

    Args:
        clusters: How many.
        steps: Most rounds of assigning positions and moving centres.

    Raises:
        ValueError: If `clusters` is under 2 or `steps` under 1.
    """

    clusters: int = 2
    steps: int = 100

    def __post_init__(self) -> None:
        if self.clusters < 2 or self.steps < 1:
            raise ValueError(
                f"clusters is {self.clusters} and steps {self.steps}, but two clusters and one step are the fewest: "
                "give more."
            )

    def segments(self, acts: Float[Tensor, "b *grid d"]) -> Objects:
        """The objects of activations that are finite."""
        unit = normalize(acts.flatten(1, -2).double(), dim=-1)
        centres = farthest_first(unit, self.clusters)
        of = nearest(unit, centres)
        for _ in range(self.steps):
            centres = moved(unit, of, centres)
            before, of = of, nearest(unit, centres)
            if torch.equal(before, of):
                break
        cosines = unit @ centres.mT
        own = torch.nn.functional.one_hot(of, self.clusters).bool()
        sizes = own.sum(dim=1)
        found = (sizes > 0) & ((sizes > 0).sum(dim=1, keepdim=True) > 1)
        ties = cosines.unsqueeze(2).expand(-1, -1, self.clusters, -1)
        itself = torch.eye(self.clusters, dtype=torch.bool, device=acts.device)
        margin = cosines - ties.masked_fill(itself | ~found[:, None, None, :], -torch.inf).amax(dim=-1)
        tightness = (cosines * own).sum(dim=1) / sizes
        order = sizes.argsort(dim=1, descending=True, stable=True)
        shape, columns = (len(acts), self.clusters, *acts.shape[1:-1]), order[:, :, None].expand(-1, -1, own.shape[1])
        masks = (own & found[:, None]).mT.gather(1, columns).view(shape)
        saliency = margin.where(found[:, None], 0).mT.gather(1, columns).view(shape).to(acts.dtype)
        return Objects(masks, saliency, {"tightness": tightness.gather(1, order).to(acts.dtype)})


def farthest_first(unit: Float[Tensor, "b n d"], clusters: int) -> Float[Tensor, "b k d"]:
    """The positions that centres start from.

    Args:
        unit: Vectors of length 1.
        clusters: How many centres.
    """
    best = foremost((unit @ unit.mean(dim=1)[:, :, None])[..., 0])
    centres = unit[torch.arange(len(unit), device=unit.device), best][:, None]
    while centres.shape[1] < clusters:
        far = foremost(-(unit @ centres.mT).amax(dim=-1))
        centres = torch.cat([centres, unit[torch.arange(len(unit), device=unit.device), far][:, None]], dim=1)
    return centres


def nearest(unit: Float[Tensor, "b n d"], centres: Float[Tensor, "b k d"]) -> Int[Tensor, "b n"]:
    """The centre of the largest cosine with each position."""
    return foremost(unit @ centres.mT)


def moved(
    unit: Float[Tensor, "b n d"], of: Int[Tensor, "b n"], centres: Float[Tensor, "b k d"]
) -> Float[Tensor, "b k d"]:
    """Each centre as the direction of the mean of its positions; where it has none, as it is."""
    own = torch.nn.functional.one_hot(of, centres.shape[1]).to(unit)
    sums = own.mT @ unit
    return torch.where(sums.norm(dim=-1, keepdim=True) > 1e-12, normalize(sums, dim=-1), centres)
