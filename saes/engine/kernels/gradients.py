"""Both weight gradients of an SAE in one pass over its codes, sorted by feature.

    grad_W_dec[f] = sum of values * grad[row]
    grad_W_enc[f] = sum of grad_pre_acts * x[row]     row-major [d_sae, d_in], the memory of W_enc
    grad_b_enc[f] = sum of grad_pre_acts

Worth a kernel: one reading of the sorted list, and one launch, serve three results. Long runs are cut as in `sums`;
nothing is added atomically. Adam is not fused in, because clipping needs the norm of all gradients first.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saes.engine.kernels import tiles
from saes.engine.kernels.sums import bag_of_chunks


@triton.jit
@no_type_check
def _sum(
    grad, x, rows, values, grad_pre_acts, start, count, gap_at, gap, columns, n, d, PAIRS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """The sums of `count` pairs from `start` on, with `gap` pairs left out after the first `gap_at`."""
    total_dec = tl.full([PAIRS, WIDTH], 0.0, tl.float32)
    total_enc = tl.full([PAIRS, WIDTH], 0.0, tl.float32)
    total_bias = tl.full([PAIRS], 0.0, tl.float32)
    for first in range(0, count, PAIRS):
        place = first + tl.arange(0, PAIRS)
        mask = place < count
        pair = start + place + tl.where(place >= gap_at, gap, 0)
        row = tl.load(rows + pair, mask=mask, other=0).to(tl.int64)
        value = tl.load(values + pair, mask=mask, other=0.0).to(tl.float32)
        slope = tl.load(grad_pre_acts + pair, mask=mask, other=0.0).to(tl.float32)
        total_bias += slope
        inside = mask[:, None] & (columns < d)[None, :]
        grads = tl.load(grad + row[:, None] * d + columns[None, :], mask=inside, other=0.0)
        total_dec += value[:, None] * grads.to(tl.float32)
        acts = tl.load(x + (row % n)[:, None] * d + columns[None, :], mask=inside, other=0.0)
        total_enc += slope[:, None] * acts.to(tl.float32)
    return tl.sum(total_dec, axis=0), tl.sum(total_enc, axis=0), tl.sum(total_bias, axis=0)


@triton.jit
@no_type_check
def _chunk_gradients(
    grad, x, rows, values, grad_pre_acts, offsets, bags, dec_parts, enc_parts, bias_parts, n, d, PAIRS: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start = chunk * CHUNK
    if tl.load(offsets + tl.load(bags + chunk) + 1) >= start + CHUNK:  # All of it of one feature.
        dec, enc, bias = _sum(grad, x, rows, values, grad_pre_acts, start, CHUNK, 0, 0, columns, n, d, PAIRS, WIDTH)
        cells = chunk.to(tl.int64) * d + columns
        tl.store(dec_parts + cells, dec, mask=columns < d)
        tl.store(enc_parts + cells, enc, mask=columns < d)
        tl.store(bias_parts + chunk, bias)  # Every cut of the columns finds the same number.


@triton.jit
@no_type_check
def _gradients(
    grad, x, rows, values, grad_pre_acts, offsets, dec_parts, enc_parts, bias_parts, grad_W_dec, grad_W_enc, grad_b_enc,
    n, d, PAIRS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    feature = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start = tl.load(offsets + feature)
    end = tl.load(offsets + feature + 1)
    chunk = (start + CHUNK - 1) // CHUNK
    whole = tl.maximum(end // CHUNK - chunk, 0)
    gap = whole * CHUNK
    before = chunk * CHUNK - start
    dec, enc, bias = _sum(
        grad, x, rows, values, grad_pre_acts, start, end - start - gap, before, gap, columns, n, d, PAIRS, WIDTH
    )
    inside = columns < d
    for part in range(0, whole):
        cells = (chunk + part) * d + columns
        dec += tl.load(dec_parts + cells, mask=inside, other=0.0)
        enc += tl.load(enc_parts + cells, mask=inside, other=0.0)
        bias += tl.load(bias_parts + chunk + part)
    cells = feature * d + columns
    tl.store(grad_W_dec + cells, dec, mask=inside)
    tl.store(grad_W_enc + cells, enc, mask=inside)
    if tl.program_id(1) == 0:
        tl.store(grad_b_enc + feature, bias)


def weight_gradients(
    grad: Float[Tensor, "p d"],
    x: Float[Tensor, "n d"],
    values: Float[Tensor, " nnz"],
    grad_pre_acts: Float[Tensor, " nnz"],
    rows: Int[Tensor, " nnz"],
    order: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " m_plus_1"],
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Gradients of decoder, encoder and encoder bias, in float32; the encoder's is [d_sae, d_in].

    Args:
        grad: Gradient of the loss at each reconstruction.
        x: Activations less `b_dec`; for stacked SAEs one block of the reconstructions' rows, shared by all blocks.
        values: The codes.
        grad_pre_acts: Gradient at each kept pre-activation.
        rows: The row of each code, among the reconstructions.
        order: Sorts the codes by feature (`Latents.by_feature`).
        offsets: Where each feature starts in that order.
    """
    m, n, d = len(offsets) - 1, len(x), grad.shape[1]
    grad, x = grad.contiguous(), x.contiguous()
    # The list in its order: the kernel reads it once a cut of the columns, and then in whole cache lines.
    listed = [part[order] for part in (rows, values, grad_pre_acts)]
    columns = tiles.width(grad, x)
    shape = {"PAIRS": tiles.pairs(columns), "WIDTH": columns, "CHUNK": tiles.CHUNK}
    warps, cuts, chunks = tiles.warps(shape["PAIRS"] * columns), tiles.cut(d, columns), len(order) // tiles.CHUNK
    parts = [grad.new_empty(size, dtype=torch.float32) for size in ((chunks, d), (chunks, d), chunks)]
    found = [grad.new_empty(size, dtype=torch.float32) for size in ((m, d), (m, d), m)]
    with torch.cuda.device_of(grad):
        if chunks:
            bags = bag_of_chunks(offsets, chunks)
            _chunk_gradients[(chunks, cuts)](grad, x, *listed, offsets, bags, *parts, n, d, **shape, num_warps=warps)
        if m:
            _gradients[(m, cuts)](grad, x, *listed, offsets, *parts, *found, n, d, **shape, num_warps=warps)
    return found[0], found[1], found[2]
