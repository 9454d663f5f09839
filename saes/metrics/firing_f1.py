"""Firing F1: whether latents fire when the true features they stand for do (as in SAELens' synthetic evaluations)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import Activations, Directions, Latents
from saes.metrics.base import Findings, evaluating
from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.matching import cosines, matched

Measure = Callable[[Tensor], Tensor]

_GROUPS = 256  # Of examples, for the bootstrap: a table of groups x features x 3 is held.


@dataclass(frozen=True)
class Firing(Findings):
    """How well firing is told.

    Args:
        f1: Mean over true features; interval over examples.
        precision: Of the rows where the latent fires, the share where its feature does; mean and interval likewise.
        recall: Of the rows where the feature fires, the share where its latent does; likewise.
        per_feature: F1 of each true feature; 0 where it has no latent.
    """

    f1: Interval
    precision: Interval
    recall: Interval
    per_feature: Float[Tensor, " m"] = field(repr=False)


@torch.no_grad()
def firing_f1(
    directions: Directions,
    features: Float[Tensor, "m d_in"],
    rows: Activations,
    codes: Latents,
    *,
    batch_size: int = 4096,
    resamples: int = 1000,
    seed: int = 0,
) -> Firing:
    """F1 of "the latent fires" as a sign of "its feature fires", averaged over true features.

    Latents and features are paired one to one by cosine, so that duplicates do not count (SAELens averages over
    latents, each with its nearest feature). A feature without a latent, or whose latent never fires rightly, has 0; one
    that never fires in these rows is left out.

    Args:
        directions: What is judged; a code other than 0 is a firing.
        features: The true directions.
        rows: The rows, as `SyntheticWorld.sample` gives them.
        codes: The true codes behind them, from the same call.
        batch_size: Rows at a time; it changes no value.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.

    Raises:
        ValueError: If there are not as many codes as rows, or widths differ.
    """
    if len(rows) != len(codes) or codes.d_sae != len(features):
        raise ValueError(
            f"codes are {len(codes)} of {codes.d_sae} features, but there are {len(rows)} rows and {len(features)} "
            "features: give the rows and codes of one call of SyntheticWorld.sample."
        )
    pairs = matched(cosines(features, directions.W_dec))
    counts = torch.zeros(min(_GROUPS, len(rows)), 3, len(features), dtype=torch.float64)
    groups = torch.unique(rows.example, return_inverse=True)[1] % len(counts)
    with evaluating(directions):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            fires = codes[part].dense() != 0
            latents = directions.encode(rows.values[part].to(directions.W_dec))
            found = (latents.columns(pairs.second.to(directions.W_dec.device)) != 0).to(fires.device)
            said = torch.zeros_like(fires).index_copy_(1, pairs.first, found)
            counts.index_add_(0, groups[part], torch.stack([fires & said, said, fires], dim=1).double())
    per_feature = _f1(counts.sum(dim=0))

    def over(of: Measure) -> Interval:
        return bootstrap(counts.flatten(1), lambda totals: _mean(of, totals), resamples=resamples, seed=seed)

    return Firing(over(_f1), over(_precision), over(_recall), per_feature)


def _mean(of: Measure, totals: Float[Tensor, "*r q"]) -> Float[Tensor, "*r"]:
    """A measure averaged over the features that fire."""
    counts = totals.unflatten(-1, (3, -1))
    fires = counts[..., 2, :] > 0
    return (of(counts) * fires).sum(dim=-1) / fires.sum(dim=-1)


def _f1(counts: Float[Tensor, "*r 3 m"]) -> Float[Tensor, "*r m"]:
    right, said, fires = counts.unbind(-2)
    return 2 * right / (said + fires).clamp(min=1)


def _precision(counts: Float[Tensor, "*r 3 m"]) -> Float[Tensor, "*r m"]:
    right, said, _ = counts.unbind(-2)
    return right / said.clamp(min=1)


def _recall(counts: Float[Tensor, "*r 3 m"]) -> Float[Tensor, "*r m"]:
    right, _, fires = counts.unbind(-2)
    return right / fires.clamp(min=1)
