"""Numbers that tell a good embedding from a poor one: a ridge probe, nearest neighbours, intervals."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.stores.shuffling import counter_key

_RESAMPLES = 1000
_RIDGES = tuple(10.0**power for power in range(-8, 3))


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval over code points.

    Args:
        value: On all of them.
        low: 2.5 % of the resamples are below.
        high: 2.5 % of the resamples are above.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ridge_probe(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    validation: Bool[Tensor, " n"],
    test: Float[Tensor, "m d"],
) -> Int[Tensor, " m"]:
    """Predict labels by a linear map to one-hot targets: ridge regression in closed form, in float64.

    Features are standardised. Of 11 ridges, 1e-8 to 100 times the number of rows, the one that is best on the
    validation rows is taken, and the map is then fitted on all rows.

    Args:
        train: Embeddings.
        labels: Their classes, from 0.
        validation: Rows that choose the ridge.
        test: Embeddings to predict for.
    """
    mean, std = train.double().mean(dim=0), train.double().std(dim=0).clamp_min(1e-6)
    x, targets = (train.double() - mean) / std, F.one_hot(labels).double()
    fits = _ridges(x[~validation], targets[~validation])
    right = [((x[validation] @ weight + bias).argmax(dim=1) == labels[validation]).sum() for weight, bias in fits]
    weight, bias = _ridges(x, targets)[int(torch.stack(right).argmax())]
    return (((test.double() - mean) / std) @ weight + bias).argmax(dim=1)


def _ridges(
    x: Float[Tensor, "n d"], targets: Float[Tensor, "n c"]
) -> list[tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]]:
    """Weight and bias for each ridge, from one eigendecomposition."""
    centre, bias = x.mean(dim=0), targets.mean(dim=0)
    values, vectors = torch.linalg.eigh((x - centre).T @ (x - centre) / len(x))
    rotated = vectors.T @ ((x - centre).T @ (targets - bias)) / len(x)
    weights = [vectors @ (rotated / (values.clamp_min(0) + ridge)[:, None]) for ridge in _RIDGES]
    return [(weight, bias - centre @ weight) for weight in weights]


def nearest(queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"]) -> Int[Tensor, " q"]:
    """The row of the gallery with the largest cosine, about the gallery's mean."""
    mean = gallery.mean(dim=0)
    return (F.normalize(queries - mean, dim=1) @ F.normalize(gallery - mean, dim=1).T).argmax(dim=1)


def share(hits: Float[Tensor, " n"], groups: Int[Tensor, " n"], *, seed: int) -> Share:
    """Mean over rows, with a bootstrap interval over groups; for differences, give the difference of the hits.

    Args:
        hits: A number a row.
        groups: Which group each row is of, from 0.
        seed: Names the draws; equal seeds draw alike.
    """
    sums = torch.zeros(int(groups.max()) + 1, 2, dtype=torch.float64)
    sums.index_add_(0, groups, torch.stack([hits.double(), torch.ones(len(hits), dtype=torch.float64)], dim=1))
    draws = np.random.default_rng(int(counter_key(seed))).integers(len(sums), size=(_RESAMPLES, len(sums)))
    totals = sums[torch.from_numpy(draws)].sum(dim=1)
    low, high = np.quantile((totals[:, 0] / totals[:, 1]).numpy(), (0.025, 0.975))
    return Share(float(hits.double().mean()), float(low), float(high))
