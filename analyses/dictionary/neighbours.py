"""Neighbours of each feature: by direction, and by firing together."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from analyses.dictionary.gathering import Partners
from interp.types import Directions

KINDS = ("decoder", "encoder", "cofire")
_CHUNK_VALUES = 1 << 24
# A feature of a chunk takes 8 bits of a sort key, its partners 24.
_CHUNK_FEATURES = 256


@dataclass(frozen=True)
class Neighbours:
    """Columns of the neighbours, sorted by feature, kind and falling value.

    Args:
        feature: The feature asked about.
        kind: Index into `KINDS`.
        other: Its neighbour.
        value: Cosine (decoder, encoder) or Jaccard index of the firings (cofire).
    """

    feature: NDArray[np.int64]
    kind: NDArray[np.int8]
    other: NDArray[np.int64]
    value: NDArray[np.float32]


def all_neighbours(directions: Directions, partners: Partners, count: NDArray[np.int64], n: int) -> Neighbours:
    """The nearest features of each feature, of each kind there is.

    Args:
        directions: The features; encoder neighbours only where it has a linear encoder.
        partners: After the second look.
        count: Firings of each feature.
        n: Neighbours of a kind.
    """
    parts = [nearest(directions.W_dec, n)]
    if directions.W_enc is not None:
        parts.append(nearest(directions.W_enc.T, n))
    else:
        parts.append((np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)))
    parts.append(firing_together(partners, count, n))
    kind = np.repeat(np.arange(3, dtype=np.int8), [len(feature) for feature, _, _ in parts])
    feature, other, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((other, -value, kind, feature))
    return Neighbours(feature[order], kind[order], other[order], value[order])


@torch.no_grad()
def nearest(
    directions: Float[Tensor, "d_sae d_in"], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The `n` other rows of largest cosine of each row: feature, other, cosine.

    Args:
        directions: One direction a row.
        n: Neighbours a row.
    """
    unit = torch.nn.functional.normalize(directions.detach().float(), dim=1)
    m, n = len(unit), min(n, len(unit) - 1)
    if n < 1:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    others, values = [], []
    chunk = max(1, _CHUNK_VALUES // m)
    for start in range(0, m, chunk):
        cosines = unit[start : start + chunk] @ unit.T
        own = torch.arange(len(cosines), device=cosines.device)
        cosines[own, own + start] = -torch.inf
        best = cosines.topk(n, dim=1)
        others.append(best.indices.cpu())
        values.append(best.values.cpu())
    feature = np.repeat(np.arange(m), n)
    return feature, torch.cat(others).flatten().numpy(), torch.cat(values).flatten().numpy()


def firing_together(
    partners: Partners, count: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The `n` features of largest Jaccard index of each feature: rows where both fire over rows where either does.

    The rows where both fire are estimated from the sampled firings; exact for a feature that has no more of them.

    Args:
        partners: After the second look.
        count: Firings of each feature.
        n: Neighbours a feature.
    """
    feature, other, together = partners.counts()
    both = together * (count[feature] / np.maximum(partners.used[feature], 1))
    both = np.minimum(both, np.minimum(count[feature], count[other]))
    jaccard = (both / np.maximum(count[feature] + count[other] - both, 1)).astype(np.float32)
    starts = np.searchsorted(feature, np.arange(len(count) + 1))
    chosen = [np.empty(0, np.int64)]
    for first in range(0, len(count), _CHUNK_FEATURES):
        begin, end = starts[first], starts[min(first + _CHUNK_FEATURES, len(count))]
        chosen.append(begin + _largest(feature[begin:end] - first, jaccard[begin:end], n))
    rows = np.concatenate(chosen)
    return feature[rows], other[rows], jaccard[rows]


def _largest(group: NDArray[np.int64], value: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """The `n` records of largest value of each group, the earlier of equal ones; `group` ascends and is small."""
    # Group, falling value and place in one integer: a plain sort of integers is 6 times faster than a lexsort.
    falling = np.uint64(0xFFFFFFFF) - value.view(np.uint32)
    places = np.arange(len(group), dtype=np.uint64)
    starts = np.searchsorted(group, np.arange(_CHUNK_FEATURES)).astype(np.uint64)
    inside = places - starts[group]
    codes = (group.astype(np.uint64) << np.uint64(56)) | (falling << np.uint64(24)) | inside
    codes.sort()
    chosen = codes[inside < n]  # Sorting keeps the groups in place: the first n of each are its largest.
    return (starts[(chosen >> np.uint64(56)).astype(np.int64)] + (chosen & np.uint64(0xFFFFFF))).astype(np.int64)


@torch.no_grad()
def plane_of(directions: Float[Tensor, "d_sae d_in"]) -> NDArray[np.float32]:
    """Two coordinates of each direction: its first two principal components, each with a fixed sign.

    Args:
        directions: One direction a row; its length does not count.
    """
    m, d = directions.shape
    unit = torch.nn.functional.normalize(directions.detach().float(), dim=1)
    mean = unit.double().mean(dim=0)
    gram = torch.zeros(d, d, dtype=torch.float64, device=unit.device)
    chunk = max(1, _CHUNK_VALUES // d)
    for start in range(0, m, chunk):
        centred = unit[start : start + chunk].double() - mean
        gram += centred.T @ centred
    axes = torch.linalg.eigh(gram).eigenvectors[:, -2:].flip(1)
    # An eigenvector's sign is arbitrary: its largest entry is made positive.
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    plane = ((unit.double() - mean) @ axes).float().cpu().numpy()
    return plane if d > 1 else np.hstack([plane, np.zeros((m, 1), np.float32)])
