"""Exact choices among pre-activations: the k largest of a row or feature, entries above a bound, the largest of all."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saes.engine.kernels import availability
from saes.engine.selection import Candidates, Context, concatenated


def top_rows(scores: Float[Tensor, "n m"], k: int, groups: int = 16) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The `k` largest of each row, exact, in no order.

    Two stages: the k strided groups (columns g, g + m / groups, ...) with the largest maxima hold the k largest
    entries. Strided groups reduce an outer axis, which is vectorised: 1.6 ms where contiguous groups take 21.9 and
    `torch.topk` 41, at 1024 x 8192.
    """
    n, m = scores.shape
    width = m // groups
    if m % groups or width < 2 * k or k == 0:
        return scores.topk(k, dim=1, sorted=False)
    grouped = scores.view(n, groups, width)
    _, best = (
        top_rows(grouped.amax(dim=1), k, 4) if width >= 8 * k else grouped.amax(dim=1).topk(k, dim=1, sorted=False)
    )
    members = grouped.gather(2, best.unsqueeze(1).expand(-1, groups, -1)).reshape(n, groups * k)
    values, place = top_rows(members, k, 4) if groups > 4 else members.topk(k, dim=1, sorted=False)
    group = torch.div(place, k, rounding_mode="floor")
    return values, best.gather(1, place - group * k) + group * width


def top_columns(
    scores: Float[Tensor, "m c"], k: int, groups: int = 8
) -> tuple[Float[Tensor, "c k"], Int[Tensor, "c k"]]:
    """The `k` largest of each column, exact, in no order: `top_rows` where the entries of one are far apart.

    The maxima of the groups are transposed, not the scores, and of these only the members of the best are read.
    """
    if not scores.is_contiguous():
        return top_rows(scores.T, k)
    m, c = scores.shape
    width = m // groups
    if m % groups or width < 2 * k or k == 0:
        return top_rows(scores.T.contiguous(), k)
    _, best = top_rows(scores.view(groups, width, c).amax(dim=0).T.contiguous(), k, 4)
    first = best * c + torch.arange(c, device=scores.device).unsqueeze(1)
    steps = torch.arange(groups, device=scores.device) * (width * c)
    places = (first.unsqueeze(1) + steps[:, None]).view(-1)
    members = scores.view(-1).index_select(0, places).view(c, groups * k)
    values, place = members.topk(k, dim=1, sorted=False)
    group = torch.div(place, k, rounding_mode="floor")
    return values, best.gather(1, place - group * k) + group * width


def row_borders(scores: Float[Tensor, "n m"], k: int) -> Float[Tensor, "n 1"]:
    """The `k`-th largest of each row."""
    if scores.is_cuda:
        return scores.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    # numpy's partition is vectorised: 8 ms where topk takes 47 and kthvalue 65, at 4096 x 819.
    place = scores.shape[1] - k
    parted = np.partition(scores.numpy(force=True), place, axis=1)
    return torch.from_numpy(parted[:, place : place + 1])


def below_largest(scores: Float[Tensor, "f n"], budget: int) -> float:
    """A number that the `budget` largest entries exceed, and what equals the smallest of them: no other entry does."""
    surplus = scores.numel() - budget
    if surplus <= 0 or budget == 0:
        return -math.inf
    smallest = row_borders(scores.reshape(1, -1), budget)
    return float(torch.nextafter(smallest, smallest.new_tensor(-math.inf)))


def row_top_k(
    pre_acts: Float[Tensor, "m c"], k: int, context: Context, scores: Float[Tensor, "m c"] | None = None
) -> Candidates:
    """The k largest of each row, positive or not, features ascending within a row.

    Args:
        pre_acts: Pre-activations of a chunk of all features.
        k: Pairs a row.
        context: Of the chunk.
        scores: What to rank by; None for the pre-activations themselves.
    """
    values, indices = _ascending(top_columns, pre_acts if scores is None else scores, k, dim=0)
    values = values if scores is None else pre_acts.gather(0, indices.T).T
    rows = torch.arange(context.start, context.start + len(indices), device=values.device).repeat_interleave(k)
    return Candidates(rows, indices.flatten(), values.flatten(), k=k)


def feature_top_k(pre_acts: Float[Tensor, "f n"], k: int, context: Context) -> Candidates:
    """The k largest of each feature, positive or not, rows ascending within a feature.

    Args:
        pre_acts: Pre-activations of a chunk of all rows.
        k: Pairs a feature.
        context: Of the chunk.
    """
    values, rows = _ascending(top_rows, pre_acts, k, dim=1)
    features = torch.arange(context.start, context.start + len(rows), device=values.device).repeat_interleave(k)
    return Candidates(rows.flatten(), features, values.flatten())


def feature_budgets(pre_acts: Float[Tensor, "f n"], budgets: Int[Tensor, " f"], context: Context) -> Candidates:
    """The largest positive entries of each feature, as many as its budget, rows ascending within a feature.

    Features whose budgets are of one order of magnitude are taken together: each of theirs takes as many entries as
    the largest budget among them, and leaves what is beyond its own.

    Args:
        pre_acts: Pre-activations of a chunk of all rows.
        budgets: Entries a feature, at most `n`.
        context: Of the chunk.
    """
    magnitudes = torch.frexp(budgets.float()).exponent  # 0 for no budget, 1 for one entry, 2 for two and three, ...
    parts = []
    for magnitude in magnitudes.unique().tolist():
        features = (magnitudes == magnitude).nonzero().squeeze(1)
        some, own = pre_acts if len(features) == len(pre_acts) else pre_acts[features], budgets[features]
        k = int(own.amax())
        # Ranked in single precision: in double, rows that are copies would be told apart by rounding.
        scores, rows = _ascending(top_rows, some.float(), k, dim=1)
        values = some.gather(1, rows)
        kept = values > 0
        if bool((own < k).any()):
            best = scores.argsort(dim=1, descending=True, stable=True)
            within = torch.arange(k, device=scores.device) < own[:, None]
            kept &= torch.empty_like(within).scatter_(1, best, within)
        indices = (features + context.start)[:, None].expand_as(rows)
        parts.append(Candidates(rows[kept], indices[kept], values[kept]))
    found = concatenated(parts)
    return found if len(parts) == 1 else found.keep(found.indices.argsort(stable=True))


def _ascending(
    twin: Callable[[Tensor, int], tuple[Tensor, Tensor]], scores: Tensor, k: int, dim: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The `k` largest along a dimension, by a kernel or its twin, a row each, in order of their places."""
    if availability.wanted(scores) and k <= availability.LARGEST_K:
        from saes.engine.kernels.selection import top_rows as kernel

        return kernel(scores if dim == 1 else scores.T, k)
    values, places = twin(scores, k)
    places, order = places.sort(dim=1)
    return values.gather(1, order), places


def largest(candidates: Candidates, budget: int) -> Candidates:
    """The `budget` pairs with the largest values, in order; of equal ones the first; all where there are fewer."""
    values = candidates.values
    surplus = values.numel() - budget
    if surplus <= 0:
        return candidates
    smallest = values.kthvalue(surplus + 1).values
    kept = values >= smallest
    if int(kept.count_nonzero()) > budget:
        # Ties at the border: whatever is larger stays, and as many of the equal ones as there is room for.
        kept, equal = values > smallest, values == smallest
        kept |= equal & (equal.cumsum(0) <= budget - kept.count_nonzero())
    return candidates.keep(kept.nonzero().squeeze(1))


def above(pre_acts: Float[Tensor, "f n"], bound: float | Float[Tensor, " d_sae"], context: Context) -> Candidates:
    """Entries strictly above a bound (one number, or one a feature), in order of feature and row.

    Args:
        pre_acts: Pre-activations of a chunk of all rows.
        bound: The bound.
        context: Of the chunk.
    """
    n = pre_acts.shape[1]
    if isinstance(bound, Tensor):
        bound = bound[context.start : context.start + len(pre_acts), None]
    hit = torch.gt(pre_acts, bound, out=context.scratch("hit", pre_acts, *pre_acts.shape, dtype=torch.bool)).view(-1)
    if len(hit) % 8 == 0:
        # Scan the mask eight flags at a time: 2.6 ms where `nonzero` of the flags takes 16, at 1024 x 8192.
        flags = hit.view(torch.int64)
        words = flags.nonzero().squeeze(1)
        inside = flags.index_select(0, words).view(torch.bool).nonzero().squeeze(1)
        flat = words.index_select(0, inside >> 3).mul_(8).add_(inside & 7)
    else:
        flat = hit.nonzero().squeeze(1)
    features = torch.div(flat, n, rounding_mode="floor") if n else flat
    values = pre_acts.reshape(-1).index_select(0, flat)
    return Candidates(flat - features * n, features + context.start, values)
