"""The k largest of each row of the encoder's output, exact, in one reading of the row.

Worth a kernel: `torch.topk` reads a row once a digit of its radix selection, and `engine.choices.top_rows` reads it
once but hands its stages on through memory. Stage one reads the row and keeps, in registers, the maximum of each of W
strided groups (columns g, g + W, ...); the k groups of the largest maxima hold k largest entries. Stage two reads those
groups' members, k * m / W entries, again, and selects among them. W near sqrt(k * m) makes both selections small: the
second reading is a few percent. (Radix selection by histograms would read the row two to four times, since a row of
131072 does not fit a block. Two launches, because the end of one is the barrier between writing and reading groups.)

Both stages find the k-th largest by bisection over the bits of an integer image of the numbers that keeps their order,
and place what they keep by one cumulative sum: of equal entries the first are kept, and columns come out ascending.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saes.engine.kernels import tiles


@triton.jit
@no_type_check
def _keys(pointers, mask, BITS: tl.constexpr):
    """Integers in the order of the numbers; below all of them where there is none. NaN follows its sign."""
    numbers = tl.load(pointers, mask=mask)
    bits = numbers.to(tl.int32 if BITS == 32 else tl.int16, bitcast=True).to(tl.int32)
    # Negative numbers are stored as sign and magnitude: with all bits but the sign turned they ascend.
    keys = bits ^ ((bits >> (BITS - 1)) & ((1 << (BITS - 1)) - 1))
    return tl.where(mask, keys, -(1 << (BITS - 1)))


@triton.jit
@no_type_check
def _places(keys, k, BITS: tl.constexpr):
    """Where each of the `k` largest keys goes, in their order here; -1 for the others."""
    # The k-th largest, bit by bit from the sign on: a bit stays set as long as k keys are at least as large.
    border = tl.where(tl.sum((keys >= 0).to(tl.int32), axis=0) >= k, 0, -(1 << (BITS - 1)))
    for place in range(1, BITS):
        higher = border + (1 << (BITS - 1 - place))
        border = tl.where(tl.sum((keys >= higher).to(tl.int32), axis=0) >= k, higher, border)
    larger = keys > border
    room = k - tl.sum(larger.to(tl.int32), axis=0)
    # Both counts in one cumulative sum: larger ones in the upper half, equal ones in the lower.
    counts = tl.cumsum(tl.where(larger, 65536, tl.where(keys == border, 1, 0)), axis=0)
    equal = counts & 65535
    kept = larger | ((keys == border) & (equal <= room))
    return tl.where(kept, (counts >> 16) + tl.minimum(equal, room) - 1, -1)


@triton.jit
@no_type_check
def _best_groups(scores, groups, m, stride, k, BITS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, WIDTH)
    largest = tl.full([WIDTH], -(1 << (BITS - 1)), tl.int32)
    for first in tl.range(0, m, WIDTH, loop_unroll_factor=4):
        columns = first + group
        largest = tl.maximum(largest, _keys(scores + row * stride + columns, columns < m, BITS))
    place = _places(largest, k, BITS)
    tl.store(groups + row * k + place, group, mask=place >= 0)


@triton.jit
@no_type_check
def _best_members(
    scores, groups, values, indices, m, stride, k, BITS: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr,
    MEMBERS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    # Members of all groups side by side: groups ascend, so columns do.
    place = tl.arange(0, MEMBERS * K)
    slot = place % K
    column = tl.load(groups + row * k + slot, mask=slot < k, other=0) + place // K * WIDTH
    mask = (slot < k) & (column < m)
    pointers = scores + row * stride + column
    goes = _places(_keys(pointers, mask, BITS), k, BITS)
    tl.store(values + row * k + goes, tl.load(pointers, mask=mask), mask=goes >= 0)
    tl.store(indices + row * k + goes, column.to(tl.int64), mask=goes >= 0)


def top_rows(scores: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The `k` largest of each row, exact, columns ascending; made for k to 256 and m to 131072.

    Args:
        scores: float32 or bfloat16; rows may lie apart, as in a part of the columns of a wider matrix.
        k: How many, at most m.
    """
    n, m = scores.shape
    scores = scores if scores.stride(1) == 1 else scores.contiguous()
    stride = scores.stride(0)
    values, indices = scores.new_empty(n, k), scores.new_empty(n, k, dtype=torch.long)
    if n == 0:
        return values, indices
    groups = scores.new_empty(n, k, dtype=torch.int32)
    width = min(tiles.power_of_two(max(math.isqrt(k * m), k, 16)), tiles.power_of_two(m))
    kept, members = tiles.power_of_two(k), tiles.power_of_two(tiles.cut(m, width))
    assert max(width, kept * members) < 65536, "the counts of _places share 32 bits"
    bits = 8 * scores.element_size()
    with torch.cuda.device_of(scores):
        _best_groups[(n,)](scores, groups, m, stride, k, BITS=bits, WIDTH=width, num_warps=tiles.warps(width))
        _best_members[(n,)](
            scores, groups, values, indices, m, stride, k, BITS=bits, WIDTH=width, K=kept, MEMBERS=members,
            num_warps=tiles.warps(kept * members),
        )  # fmt: skip
    return values, indices
