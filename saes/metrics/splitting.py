"""Splitting: how many latents it takes to tell a class (Chanin et al. 2024, https://arxiv.org/abs/2409.14507)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from saes.metrics.base import Findings
from saes.metrics.bootstrap import Interval, bootstrap
from saes.probes.base import by_example
from saes.probes.samples import Sample
from saes.probes.sparse_linear import fit_sparse, ranked


@dataclass(frozen=True)
class Splitting(Findings):
    """Into how many latents a class is split.

    Args:
        latents: Those that each raise the F1 by more than the jump, best first; one where the class is not split.
        f1: F1 on the test rows with the first k latents, for each k; interval over examples.
    """

    latents: tuple[int, ...]
    f1: Mapping[int, Interval]


def splitting(
    sample: Sample,
    name: str,
    *,
    most: int = 10,
    jump: float = 0.03,
    select: str = "sequential",
    resamples: int = 1000,
    seed: int = 0,
) -> Splitting:
    """Latents that tell a class jointly: as long as one more raises the F1 of a k-sparse probe by more than `jump`.

    A latent that has absorbed the class in many rows counts as one of them; `absorption` tells the two apart only where
    the absorber is rare.

    Args:
        sample: Labelled latents.
        name: The class.
        most: Largest k.
        jump: What a further latent must add; the paper's 0.03.
        select: How latents are chosen; see `saes.probes.sparse_linear.ranked`.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.

    Raises:
        ValueError: If there is no such class, or `select` is unknown.
    """
    binary = sample.versus_rest(name)
    test, most = binary.only("test"), min(most, sample.width)
    order = ranked(binary, most, select=select)
    f1: dict[int, Interval] = {}
    for k in range(1, most + 1):
        said = fit_sparse(binary, k, features=order).scores(test).argmax(dim=1) == 1
        true = test.labels == 1
        sums = by_example(torch.stack([2 * (said & true), said.long() + true], dim=1).double(), test.example)
        f1[k] = bootstrap(sums, lambda t: t[..., 0] / t[..., 1].clamp(min=1), resamples=resamples, seed=seed)
        if k > 1 and f1[k].value - f1[k - 1].value <= jump:
            return Splitting(tuple(order[: k - 1].tolist()), f1)
    return Splitting(tuple(order.tolist()), f1)
