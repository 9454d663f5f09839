"""Which pre-activations are kept: exact top-k of rows, entries above a bound, and the two-hook selection.

A method gives `candidates(pre_acts of a chunk of rows, context)` and `choose(all candidates, context)`. Row-wise
methods decide in the first; methods that look at the whole batch (or column) decide in the second, and may ask for
the chunks again with wider candidates by returning None.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import Latents

CHUNK_ROWS = 1024  # Measured best on two cores: the chunk's pre-activations stay near the cache.


@dataclass(frozen=True)
class Context:
    """What a method may look at besides the pre-activations.

    Args:
        training: Whether batch-coupled rules apply; False asks for a rule that sees one row at a time.
        n: Rows in the whole batch.
        start: First row of the chunk at hand.
        attempt: How often `choose` has asked for wider candidates.
        grads: Gradient of a loss at each row of the chunk (in `candidates`) or batch (in `choose`).
    """

    training: bool
    n: int
    start: int = 0
    attempt: int = 0
    grads: Float[Tensor, "n d_in"] | None = None


@dataclass(frozen=True)
class Candidates:
    """(row, feature) pairs with the pre-activation that becomes the code and the score that ranks the pair.

    Args:
        rows: Ascending row of each pair.
        indices: Feature of each pair.
        values: Pre-activation of each pair.
        scores: What to rank by; None for the values themselves.
        k: Pairs a row, where every row has the same number.
    """

    rows: Int[Tensor, " nnz"]
    indices: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    scores: Float[Tensor, " nnz"] | None = None
    k: int | None = None

    def keep(self, mask: Tensor) -> "Candidates":
        """The pairs of a mask, or of ascending numbers."""
        scores = None if self.scores is None else self.scores[mask]
        return Candidates(self.rows[mask], self.indices[mask], self.values[mask], scores)

    def support(self, n: int, d_sae: int) -> Latents:
        """The pairs as latents of `n` rows."""
        if self.k:
            return Latents(self.values, self.indices, None, d_sae, k=self.k)
        return Latents.from_pairs(self.values, self.rows, self.indices, n, d_sae)


def concatenated(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of successive chunks as one."""
    if len(parts) == 1:
        return parts[0]
    scores = [p.scores for p in parts if p.scores is not None]
    return Candidates(
        torch.cat([p.rows for p in parts]),
        torch.cat([p.indices for p in parts]),
        torch.cat([p.values for p in parts]),
        torch.cat(scores) if scores else None,
        # One chunk with a short row makes the whole batch one of rows of any length.
        parts[0].k if len({part.k for part in parts}) == 1 else None,
    )


@torch.no_grad()
def select(
    x: Float[Tensor, "n d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    *,
    candidates: Callable[[Tensor, Context], Candidates],
    choose: Callable[[Candidates, Context], Candidates | None],
    context: Context,
) -> Latents:
    """Run the encoder over chunks of rows and keep what the method's two hooks keep.

    Args:
        x: Activations, already less `b_dec`.
        W_enc: Encoder.
        b_enc: Encoder bias.
        candidates: The method's first hook.
        choose: The method's second hook.
        context: The batch's context.

    Returns:
        The support, with the kept pre-activations as values.
    """
    n = len(x)
    buffer = x.new_empty(min(CHUNK_ROWS, n), W_enc.shape[1])
    chosen = None
    while chosen is None:
        parts = []
        for start in range(0, max(n, 1), CHUNK_ROWS):  # No rows are one empty chunk.
            rows = slice(start, start + CHUNK_ROWS)
            pre_acts = torch.addmm(b_enc, x[rows], W_enc, out=buffer[: len(x[rows])])
            grads = None if context.grads is None else context.grads[rows]
            parts.append(candidates(pre_acts, replace(context, start=start, grads=grads)))
        chosen = choose(concatenated(parts), context)
        context = replace(context, attempt=context.attempt + 1)
    return chosen.support(n, W_enc.shape[1])


def top_rows(scores: Float[Tensor, "n m"], k: int, groups: int = 16) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The `k` largest of each row, exact, in no order.

    Two stages: the k strided groups (columns g, g + m / groups, ...) with the largest maxima hold the k largest
    entries. Strided groups reduce an outer axis, which is vectorised: 1.6 ms where contiguous groups take 21.9 and
    `torch.topk` 41, at 1024 x 8192.
    """
    n, m = scores.shape
    width = m // groups
    if m % groups or width < 2 * k:
        return scores.topk(k, dim=1, sorted=False)
    grouped = scores.view(n, groups, width)
    _, best = (
        top_rows(grouped.amax(dim=1), k, 4) if width >= 8 * k else grouped.amax(dim=1).topk(k, dim=1, sorted=False)
    )
    members = grouped.gather(2, best.unsqueeze(1).expand(-1, groups, -1)).reshape(n, groups * k)
    values, place = top_rows(members, k, 4) if groups > 4 else members.topk(k, dim=1, sorted=False)
    group = torch.div(place, k, rounding_mode="floor")
    return values, best.gather(1, place - group * k) + group * width


def row_top_k(pre_acts: Float[Tensor, "n m"], k: int, start: int) -> Candidates:
    """The positive ones among the k largest of each row, features ascending within a row."""
    values, indices = top_rows(pre_acts, k)
    indices, order = indices.sort(dim=1)
    values = values.gather(1, order).flatten()
    rows = torch.arange(start, start + len(pre_acts), device=values.device).repeat_interleave(k)
    found = Candidates(rows, indices.flatten(), values, k=k)
    positive = values > 0
    return found if bool(positive.all()) else found.keep(positive)


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


def above(pre_acts: Float[Tensor, "n m"], bound: float | Float[Tensor, " m"], start: int) -> Candidates:
    """Entries strictly above a bound (one number, or one a feature), in order of row and feature."""
    hit = pre_acts > bound
    m = hit.shape[1]
    if m % 8 == 0:
        # Scan the mask eight flags at a time: 2.6 ms where `nonzero` of the flags takes 16, at 1024 x 8192.
        words = hit.view(-1).view(torch.int64).nonzero().squeeze(1)
        inside = hit.view(-1, 8)[words].nonzero()
        flat = words[inside[:, 0]] * 8 + inside[:, 1]
    else:
        flat = hit.view(-1).nonzero().squeeze(1)
    rows = torch.div(flat, m, rounding_mode="floor")
    return Candidates(rows + start, flat - rows * m, pre_acts.reshape(-1)[flat])
