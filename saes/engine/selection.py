"""Which pre-activations are kept: the two hooks of a method, run over chunks so that `[n, d_sae]` is never made.

A method gives `candidates(pre_acts of a chunk, context)` and `choose(all candidates, context)`. Row-wise methods decide
in the first; methods that look at the whole batch decide in the second, and may ask for the chunks again with wider
candidates by returning None.

A chunk is `[features, rows]`: all features of some rows for methods that compare the features of a row, and some
features of all rows for the others. Features come first because that product takes 0.9 of the time of the transposed
one, and because pairs that are found feature by feature need not be sorted by feature for the backward pass. On a GPU
a chunk of all features lies in memory the other way around, a row after a row, and hooks see it transposed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import Latents
from saes.engine.products import by_row, product
from saes.engine.scratch import Scratch

CHUNK_ROWS = 512
"""Rows of a chunk of all features: large enough for the product, small enough for the cache."""
CHUNK_ENTRIES = 1 << 23
"""Entries of a chunk of all rows."""
GPU_CHUNK_ENTRIES = 1 << 28
"""Entries of any chunk on a GPU, which has no use for small ones: 1 GiB of float32."""


def chunk_rows(d_sae: int, device: torch.device) -> int:
    """Rows of a chunk of all features."""
    return max(1, GPU_CHUNK_ENTRIES // d_sae) if device.type == "cuda" else CHUNK_ROWS


def chunk_features(n: int, device: torch.device) -> int:
    """Features of a chunk of all rows."""
    return max(1, (GPU_CHUNK_ENTRIES if device.type == "cuda" else CHUNK_ENTRIES) // max(n, 1))


@dataclass(frozen=True)
class Context:
    """What a method may look at besides the pre-activations.

    Args:
        training: Whether batch-coupled rules apply; False asks for a rule that sees one row at a time.
        n: Rows in the whole batch.
        start: First row (or feature) of the chunk at hand.
        attempt: How often `choose` has asked for wider candidates.
        grads: Gradient of a loss at each row of the chunk (in `candidates`) or batch (in `choose`, and in chunks of all
            rows).
        scratch: Buffers to write into.
    """

    training: bool
    n: int
    start: int = 0
    attempt: int = 0
    grads: Float[Tensor, "n d_in"] | None = None
    scratch: Scratch = field(default_factory=Scratch)


@dataclass(frozen=True)
class Candidates:
    """(row, feature) pairs with the pre-activation that becomes the code and the score that ranks the pair.

    Args:
        rows: Row of each pair; ascending, if the chunks hold all features.
        indices: Feature of each pair; ascending, if the chunks hold all rows.
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

    def support(self, n: int, d_sae: int, *, by_feature: bool) -> Latents:
        """The pairs as latents of `n` rows."""
        if by_feature:
            return Latents.from_feature_pairs(self.values, self.rows, self.indices, n, d_sae)
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


@dataclass(frozen=True)
class Selected:
    """What one run of the encoder kept.

    Args:
        support: The chosen pairs, with their pre-activations as values.
        watched: Pre-activations of the features that were watched, in all rows; None where none were.
    """

    support: Latents
    watched: Float[Tensor, "n f"] | None = None


@torch.no_grad()
def select(
    x: Float[Tensor, "n d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    *,
    candidates: Callable[[Tensor, Context], Candidates],
    choose: Callable[[Candidates, Context], Candidates | None],
    context: Context,
    by_feature: bool,
    watch: Int[Tensor, " f"] | None = None,
) -> Selected:
    """Run the encoder over chunks and keep what the method's two hooks keep.

    Args:
        x: Activations, already less `b_dec`.
        W_enc: Encoder.
        b_enc: Encoder bias.
        candidates: The method's first hook.
        choose: The method's second hook.
        context: The batch's context.
        by_feature: Whether a chunk is some features of all rows, instead of all features of some rows.
        watch: Features whose pre-activations are wanted in all rows, ascending: the products are made anyway.
    """
    n, d_sae = len(x), W_enc.shape[1]
    watched = None if watch is None else x.new_empty(n, len(watch))
    chunk = product(x, W_enc, b_enc, by_feature=by_feature, scratch=context.scratch)

    def encoded(part: slice) -> Tensor:
        pre_acts = chunk(part)
        if watched is not None and watch is not None:
            if by_feature:
                inside = ((watch >= part.start) & (watch < part.stop)).nonzero().squeeze(1)
                watched[:, inside] = pre_acts[watch[inside] - part.start].T
            else:
                watched[part] = pre_acts[watch].T
        return pre_acts

    return Selected(_choose(encoded, n, d_sae, x.device, candidates, choose, context, by_feature), watched)


@torch.no_grad()
def choose_among(
    pre_acts: Float[Tensor, "n d_sae"],
    *,
    candidates: Callable[[Tensor, Context], Candidates],
    choose: Callable[[Candidates, Context], Candidates | None],
    context: Context,
    by_feature: bool,
) -> Latents:
    """The same choice among pre-activations that are all there."""

    def cut(part: slice) -> Tensor:
        some = (pre_acts[:, part] if by_feature else pre_acts[part]).T
        return some if by_row(pre_acts.device, by_feature) else some.contiguous()

    n, d_sae = pre_acts.shape
    return _choose(cut, n, d_sae, pre_acts.device, candidates, choose, context, by_feature)


def _choose(
    chunk: Callable[[slice], Tensor],
    n: int,
    d_sae: int,
    device: torch.device,
    candidates: Callable[[Tensor, Context], Candidates],
    choose: Callable[[Candidates, Context], Candidates | None],
    context: Context,
    by_feature: bool,
) -> Latents:
    size = chunk_features(n, device) if by_feature else chunk_rows(d_sae, device)
    chosen = None
    while chosen is None:
        parts = []
        for start in range(0, d_sae if by_feature else max(n, 1), size):  # No rows are one empty chunk.
            part = slice(start, start + size)
            grads = context.grads if context.grads is None or by_feature else context.grads[part]
            parts.append(candidates(chunk(part), replace(context, start=start, grads=grads)))
        chosen = choose(concatenated(parts), context)
        context = replace(context, attempt=context.attempt + 1)
    return chosen.support(n, d_sae, by_feature=by_feature)
