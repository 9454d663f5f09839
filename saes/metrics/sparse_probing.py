"""k-sparse probing: what few features tell of labels (Gurnee et al. 2023, https://arxiv.org/abs/2305.01610)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saes.metrics.base import Findings
from saes.metrics.bootstrap import Interval, bootstrap
from saes.probes.base import by_example
from saes.probes.samples import Sample
from saes.probes.sparse_linear import fit_sparse, ranked


@dataclass(frozen=True)
class SparseProbing(Findings):
    """How well k features tell each class from the rest, on the test rows, averaged over classes.

    Args:
        auroc: For each k, the probability that a row of the class scores above one of the rest.
        accuracy: For each k, the balanced accuracy: 1/2 for a constant, whatever the classes' sizes.
        per_class: For each k, the AUROC of each class.
        sums: For each k, six sums of each example and class: what adds up, and what `above` compares.
        example: The examples of the sums.
    """

    auroc: Mapping[int, Interval]
    accuracy: Mapping[int, Interval]
    per_class: Mapping[int, Mapping[str, float]]
    sums: Mapping[int, Float[Tensor, "e q"]] = field(repr=False)
    example: Int[Tensor, " e"] = field(repr=False)

    def above(self, other: "SparseProbing", *, resamples: int = 1000, seed: int = 0) -> Mapping[int, Interval]:
        """AUROC less another's at the same k, with a paired interval: on the same examples, drawn together.

        Raises:
            ValueError: If the two were not measured on the same examples.
        """
        if self.classes != other.classes or not torch.equal(self.example, other.example):
            raise ValueError(
                "other was measured on other examples or classes, so nothing can be paired: gather both samples from "
                "one store, with the same labels, group, shares and seed."
            )
        found = {}
        for k in (k for k in self.sums if k in other.sums):
            mine, theirs = self.sums[k], other.sums[k]

            def difference(totals: Tensor, mine: Tensor = mine, theirs: Tensor = theirs) -> Tensor:
                one, two = totals.split(mine.shape[1], dim=-1)
                return _auroc(mine)(one) - _auroc(theirs)(two)

            both = torch.cat([mine, theirs], dim=1)
            found[k] = bootstrap(both, difference, resamples=resamples, seed=seed)
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """Those told from the rest."""
        return tuple(next(iter(self.per_class.values())))


Value = Callable[[Tensor], Tensor]


def sparse_probing(
    sample: Sample,
    ks: Sequence[int] = (1, 2, 5, 10),
    *,
    select: str = "mean_difference",
    resamples: int = 1000,
    seed: int = 0,
) -> SparseProbing:
    """Probe for each class with k features, chosen and fitted on training and validation rows.

    Compare latents with the raw channels and a PCA at equal k (`above`): what few latents tell that few channels do
    not is what a dictionary adds. Classes count alike in the fit, as rare ones would otherwise never be predicted.

    Intervals are over examples, the probes kept. That of the AUROC resamples its projection (DeLong et al. 1988): the
    mean over rows of the share of the other side that they are ranked right to; the value itself is exact.

    Args:
        sample: Labelled rows: latents, raw channels or any other directions.
        ks: Numbers of features; those above the width are left out.
        select: How features are chosen; see `saes.probes.sparse_linear.ranked`.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.

    Raises:
        ValueError: If a k is below 1, or `select` is unknown.
    """
    ks = [k for k in ks if k <= sample.width]
    test = sample.only("test")
    names = sample.classes if len(sample.classes) > 2 else sample.classes[1:]
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    for name in names:
        binary = sample.versus_rest(name)
        order = ranked(binary, max(ks), select=select)
        positive = test.labels == sample.classes.index(name)
        for k in ks:
            probe = fit_sparse(binary, k, features=order, balanced=True)
            scores = probe.scores(test)
            parts[k].append(by_example(_of_rows(scores[:, 1] - scores[:, 0], positive), test.example))
    sums = {k: torch.cat(found, dim=1) for k, found in parts.items()}

    def over(value: Callable[[Tensor], Value]) -> Mapping[int, Interval]:
        return {k: bootstrap(part, value(part), resamples=resamples, seed=seed) for k, part in sums.items()}

    per_class = {k: dict(zip(names, _each(part).tolist(), strict=True)) for k, part in sums.items()}
    return SparseProbing(over(_auroc), over(lambda _: _accuracy), per_class, sums, test.example.unique())


def _of_rows(score: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> Float[Tensor, "n 6"]:
    """Of positives and of negatives: the share of the other side they are ranked right to, whether told right, 1."""
    inside, outside = score[positive].sort().values, score[~positive].sort().values
    below = (torch.searchsorted(outside, score) + torch.searchsorted(outside, score, right=True)) / (2 * len(outside))
    above = 1 - (torch.searchsorted(inside, score) + torch.searchsorted(inside, score, right=True)) / (2 * len(inside))
    sides = [
        torch.stack([ranked_right, told, torch.ones_like(score)], dim=1) * side[:, None]
        for side, ranked_right, told in ((positive, below, score > 0), (~positive, above, score <= 0))
    ]
    return torch.cat(sides, dim=1).double()


def _each(sums: Float[Tensor, "e q"]) -> Float[Tensor, " c"]:
    """AUROC of each class."""
    totals = sums.sum(dim=0).unflatten(-1, (-1, 6))
    return totals[:, 0] / totals[:, 2]


def _auroc(sums: Float[Tensor, "e q"]) -> Value:
    """The AUROC of totals: about that of all examples, the means of both sides each add what they differ by."""
    whole = _each(sums)

    def value(totals: Tensor) -> Tensor:
        t = totals.unflatten(-1, (-1, 6))
        return (t[..., 0] / t[..., 2] + t[..., 3] / t[..., 5] - whole).nanmean(dim=-1)

    return value


def _accuracy(totals: Float[Tensor, "*r q"]) -> Float[Tensor, "*r"]:
    t = totals.unflatten(-1, (-1, 6))
    return ((t[..., 1] / t[..., 2] + t[..., 4] / t[..., 5]) / 2).nanmean(dim=-1)
