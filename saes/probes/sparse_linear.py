"""Sparse probe: a linear probe on k features (Gurnee et al. 2023, https://arxiv.org/abs/2305.01610)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.types import Latents
from saes.probes.base import Probe, moments, times, transposed_times
from saes.probes.logistic import Fit, chosen
from saes.probes.samples import Sample

PENALTIES = (1e-2, 1e-3, 1e-4)


class SparseProbe(Probe):
    """A probe whose weights are zero but for `features`, the k chosen, best first."""

    features: Int[Tensor, " k"]


def fit_sparse(
    sample: Sample,
    k: int,
    *,
    select: str = "mean_difference",
    features: Int[Tensor, " some"] | None = None,
    penalties: Sequence[float] = PENALTIES,
    balanced: bool = False,
) -> SparseProbe:
    """Choose k features on training and validation rows, then fit a linear probe to these alone.

    Args:
        sample: Labelled rows, raw or latents; the test rows are not read.
        k: Features the probe may read.
        select: How they are chosen, as in `ranked`.
        features: At least k features in order of choice, where `ranked` was called already.
        penalties: L2 penalties, as in `fit_linear`.
        balanced: Let every class count alike, rather than every row.

    Raises:
        ValueError: If `k` is not between 1 and the number of features, or `select` is unknown.
    """
    order = ranked(sample, k, select=select) if features is None else features
    best, classes = order[:k], len(sample.classes)
    columns = [(columns_of(part, best), part.labels) for part in (sample.only("train"), sample.only("validation"))]
    l2 = chosen(columns[0], columns[1], penalties, classes, balanced=balanced)
    codes, labels = (torch.cat(parts) for parts in zip(*columns, strict=True))
    few, bias = Fit(codes, labels, classes, balanced=balanced).at(l2)
    weight = torch.zeros(sample.width, classes, dtype=torch.float64).index_copy_(0, best, few)
    about = {"probe": "sparse_linear", "select": select, "features": best.tolist(), "l2": l2, "balanced": balanced}
    probe = SparseProbe(weight, bias, sample, about)
    probe.features = best
    return probe


def ranked(sample: Sample, k: int, *, select: str = "mean_difference") -> Int[Tensor, " k"]:
    """The k features that tell the classes best, best first, by training and validation rows.

    `mean_difference`: the largest difference between the means inside and outside of a class, which favours features of
    large codes. `f_score`: variance between classes over variance within (ANOVA), whatever the unit. `sequential`: one
    after another, the feature whose standardised codes go best with what a probe on those before it gets wrong.

    Args:
        sample: Labelled rows.
        k: How many.
        select: One of the three.

    Raises:
        ValueError: If `k` is not between 1 and the number of features, or `select` is unknown.
    """
    if not 1 <= k <= sample.width:
        raise ValueError(f"k is {k}, but the rows have {sample.width} features: give 1 to {sample.width}.")
    seen = sample.only("train", "validation")
    if select not in _SELECTIONS:
        raise ValueError(f"select is {select!r}, but it is one of {', '.join(_SELECTIONS)}: choose one of these.")
    return _SELECTIONS[select](seen, k)


def columns_of(sample: Sample, features: Int[Tensor, " k"]) -> Float[Tensor, "n k"]:
    """Dense codes of a few features."""
    return sample.codes.columns(features) if isinstance(sample.codes, Latents) else sample.codes[:, features]


def _class_sums(sample: Sample) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
    """Sums of codes over the rows of each class, and the numbers of rows."""
    of_class = F.one_hot(sample.labels, len(sample.classes)).double()
    return transposed_times(sample.codes, of_class), of_class.sum(dim=0)


def _mean_difference(sample: Sample, k: int) -> Int[Tensor, " k"]:
    sums, counts = _class_sums(sample)
    outside = (sums.sum(dim=1, keepdim=True) - sums) / (counts.sum() - counts)
    return _largest((sums / counts - outside).abs().amax(dim=1), k)


def _by_f_score(sample: Sample, k: int) -> Int[Tensor, " k"]:
    return _largest(_f_score(sample), k)


def _largest(score: Float[Tensor, " d"], k: int) -> Int[Tensor, " k"]:
    return score.argsort(descending=True, stable=True)[:k]


def _f_score(sample: Sample) -> Float[Tensor, " d"]:
    sums, counts = _class_sums(sample)
    mean, std = moments(sample.codes)
    n, c = counts.sum(), len(counts)
    between = (counts * (sums / counts - mean[:, None]).square()).sum(dim=1)
    within = (n * std.square() - between).clamp(min=0)
    score = (between / (c - 1)) / (within / (n - c))
    return torch.where(std > 0, score, 0.0)


def _sequential(sample: Sample, k: int) -> Int[Tensor, " k"]:
    classes = len(sample.classes)
    mean, std = moments(sample.codes)
    targets = F.one_hot(sample.labels, classes).double()
    wrong = targets - targets.mean(dim=0)
    found: list[int] = []
    while len(found) < k:
        along = transposed_times(sample.codes, wrong) - mean[:, None] * wrong.sum(dim=0)
        gain = torch.where(std > 0, along.norm(dim=1) / std, 0.0)
        gain[found] = -1
        found.append(int(gain.argmax()))
        codes = columns_of(sample, torch.tensor(found)).double()
        weight, bias = Fit(codes, sample.labels, classes).at(PENALTIES[-1])
        wrong = targets - (times(codes, weight) + bias).softmax(dim=1)
    return torch.tensor(found)


_SELECTIONS = {"mean_difference": _mean_difference, "f_score": _by_f_score, "sequential": _sequential}
