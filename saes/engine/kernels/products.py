"""Inner products of gathered rows, `out[i] = <left[rows[i]], table[indices[i]]>`: gradients of the kept codes.

Worth a kernel: torch's own (behind `embedding_bag`'s backward) gives each pair a warp and reads element by element.
Here a program holds several pairs and reads 16 bytes a thread; successive pairs share their row of `left`, which then
comes from the L1 cache. A pair's whole product is one program's, so there is nothing to add up afterwards.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saes.engine.kernels import tiles

PAIRS = 8


@triton.jit
@no_type_check
def _products(left, table, rows, indices, out, nnz, d, PAIRS: tl.constexpr, WIDTH: tl.constexpr):
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    mask = pair < nnz
    row = tl.load(rows + pair, mask=mask, other=0).to(tl.int64)
    index = tl.load(indices + pair, mask=mask, other=0).to(tl.int64)
    total = tl.full([PAIRS, WIDTH], 0.0, tl.float32)
    for first in range(0, d, WIDTH):
        columns = first + tl.arange(0, WIDTH)
        inside = mask[:, None] & (columns < d)[None, :]
        ours = tl.load(left + row[:, None] * d + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        theirs = tl.load(table + index[:, None] * d + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        total += ours * theirs
    tl.store(out + pair, tl.sum(total, axis=1), mask=mask)


def inner_products(
    left: Float[Tensor, "n d"],
    table: Float[Tensor, "m d"],
    rows: Int[Tensor, " nnz"],
    indices: Int[Tensor, " nnz"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, " nnz"]:
    """The inner product of each pair's row of `left` with its row of `table`.

    Args:
        left: One side.
        table: The other.
        rows: Rows of `left`; fast where they ascend.
        indices: Rows of `table`.
        dtype: Precision of the result; that of `left` by default. Sums are in float32 whatever it is.
    """
    nnz, d = len(indices), table.shape[1]
    out = left.new_empty(nnz, dtype=dtype or left.dtype)
    columns = min(256, tiles.power_of_two(d))
    warps = tiles.warps(PAIRS * columns)
    if nnz:
        with torch.cuda.device_of(left):
            _products[(tiles.cut(nnz, PAIRS),)](
                left.contiguous(),
                table.contiguous(),
                rows.contiguous(),
                indices.contiguous(),
                out,
                nnz,
                d,
                PAIRS=PAIRS,
                WIDTH=columns,
                num_warps=warps,
            )
    return out
