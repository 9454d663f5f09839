"""Weighted sums of gathered rows, `out[b] = sum of weights[i] * table[indices[i]] over the run of bag b`.

Worth a kernel: `embedding_bag` adds one row after the other, so that a feature that fires in every row keeps a few
threads busy while the GPU idles, and it takes weights in the table's precision. Here several rows are in flight at a
time, in slices of columns that stay in the L2 cache (`tiles`), sums are float32, and a long run is cut at fixed places
of the list into chunks that are summed side by side. Nothing is added atomically: equal inputs give equal bits.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saes.engine.kernels import tiles

# `no_type_check` here and in the other files: Triton compiles a function's source, so shape checks cannot wrap it.


@triton.jit
@no_type_check
def _sum(table, indices, weights, start, count, gap_at, gap, columns, d, PAIRS: tl.constexpr, WIDTH: tl.constexpr):
    """Sum `count` pairs from `start` on, with `gap` pairs left out after the first `gap_at`."""
    total = tl.full([PAIRS, WIDTH], 0.0, tl.float32)
    for first in range(0, count, PAIRS):
        place = first + tl.arange(0, PAIRS)
        mask = place < count
        pair = start + place + tl.where(place >= gap_at, gap, 0)
        row = tl.load(indices + pair, mask=mask, other=0).to(tl.int64)
        weight = tl.load(weights + pair, mask=mask, other=0.0).to(tl.float32)
        inside = mask[:, None] & (columns < d)[None, :]
        values = tl.load(table + row[:, None] * d + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        total += weight[:, None] * values
    return tl.sum(total, axis=0)


@triton.jit
@no_type_check
def _chunk_sums(
    table, indices, weights, offsets, bags, parts, d, PAIRS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr
):
    chunk = tl.program_id(0)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start = chunk * CHUNK
    if tl.load(offsets + tl.load(bags + chunk) + 1) >= start + CHUNK:  # All of it in one bag.
        total = _sum(table, indices, weights, start, CHUNK, 0, 0, columns, d, PAIRS, WIDTH)
        tl.store(parts + chunk.to(tl.int64) * d + columns, total, mask=columns < d)


@triton.jit
@no_type_check
def _bag_sums(
    table, indices, weights, offsets, parts, out, d, PAIRS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr
):
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start = tl.load(offsets + bag)
    end = tl.load(offsets + bag + 1)
    # Whole chunks inside the bag have their sums ready; what lies before and after them is summed here.
    chunk = (start + CHUNK - 1) // CHUNK
    chunks = tl.maximum(end // CHUNK - chunk, 0)
    gap = chunks * CHUNK
    before = chunk * CHUNK - start
    total = _sum(table, indices, weights, start, end - start - gap, before, gap, columns, d, PAIRS, WIDTH)
    for part in range(0, chunks):
        total += tl.load(parts + (chunk + part) * d + columns, mask=columns < d, other=0.0)
    tl.store(out + bag * d + columns, total, mask=columns < d)


def weighted_sums(
    table: Float[Tensor, "m d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " n_plus_1"],
    weights: Float[Tensor, " nnz"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n d"]:
    """Sum rows of a table, weighted, over each run of indices.

    Args:
        table: What is gathered from.
        indices: Rows of the table.
        offsets: Run i holds indices `offsets[i]` to `offsets[i + 1]`; it may be empty.
        weights: One an index.
        dtype: Precision of the result; the table's by default. Sums are in float32 whatever it is.
    """
    n, d = len(offsets) - 1, table.shape[1]
    table, indices, weights = table.contiguous(), indices.contiguous(), weights.contiguous()
    out = table.new_empty(n, d, dtype=dtype or table.dtype)
    columns = tiles.width(table)
    shape = {"PAIRS": tiles.pairs(columns), "WIDTH": columns, "CHUNK": tiles.CHUNK}
    warps, cuts = tiles.warps(shape["PAIRS"] * columns), tiles.cut(d, columns)
    chunks = indices.numel() // tiles.CHUNK
    parts = table.new_empty(chunks, d, dtype=torch.float32)
    with torch.cuda.device_of(table):
        if chunks:
            bags = bag_of_chunks(offsets, chunks)
            _chunk_sums[(chunks, cuts)](table, indices, weights, offsets, bags, parts, d, **shape, num_warps=warps)
        if n:
            _bag_sums[(n, cuts)](table, indices, weights, offsets, parts, out, d, **shape, num_warps=warps)
    return out


def bag_of_chunks(offsets: Int[Tensor, " n_plus_1"], chunks: int) -> Int[Tensor, " chunks"]:
    """The run that the first pair of each chunk lies in."""
    starts = torch.arange(0, chunks * tiles.CHUNK, tiles.CHUNK, device=offsets.device, dtype=offsets.dtype)
    return torch.searchsorted(offsets, starts, right=True) - 1
