"""One Adam step of one weight matrix, clipped, and its rows put back on the unit sphere, in one reading and writing.

Worth a kernel: clipping, torch's fused Adam and the renormalisation read or write m x d numbers 12 times, this 7 times:
weights, gradient and both averages in; weights and averages out. A row's norm needs its new values, which a program has
at hand. Clip factor, learning rate, number of the step and whether it counts are read on the device, so nothing waits
for the host.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from saes.engine.kernels import tiles


@triton.jit
@no_type_check
def _adam(
    weights, grad, mean, square, factor, skip, step, rate, rest1, rest2, log_beta1, log_beta2, eps, m, d,
    CLIP: tl.constexpr, SKIP: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    # 1 - beta^step in float64: at the first steps the difference is small, and it is one number a program.
    done = tl.load(step).to(tl.float64)
    correction1 = (1.0 - tl.exp(done * log_beta1)).to(tl.float32)
    correction2 = (1.0 - tl.exp(done * log_beta2)).to(tl.float32)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (row < m)[:, None] & (columns < d)[None, :]
    cells = row[:, None] * d + columns[None, :]
    slope = tl.load(grad + cells, mask=inside, other=0.0).to(tl.float32)
    if CLIP:
        slope *= tl.load(factor).to(tl.float32)
    first = tl.load(mean + cells, mask=inside, other=0.0)
    second = tl.load(square + cells, mask=inside, other=0.0)
    moved = tl.load(weights + cells, mask=inside, other=0.0)
    first += rest1 * (slope - first)
    second += rest2 * (slope * slope - second)
    moved -= (tl.load(rate) / correction1) * first / (tl.sqrt(second) / tl.sqrt(correction2) + eps)
    if UNIT:
        norm = tl.sqrt(tl.sum(moved * moved, axis=1))
        moved = moved / tl.where(row < m, norm, 1.0)[:, None]
    if SKIP:
        inside = inside & (tl.load(skip).to(tl.int32) == 0)
    tl.store(mean + cells, first, mask=inside)
    tl.store(square + cells, second, mask=inside)
    tl.store(weights + cells, moved, mask=inside)


@torch.no_grad()
def adam_step(
    weights: Float[Tensor, "m d"],
    grad: Float[Tensor, "m d"],
    mean: Float[Tensor, "m d"],
    square: Float[Tensor, "m d"],
    *,
    step: Float[Tensor, ""] | int,
    lr: Float[Tensor, ""] | float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    factor: Float[Tensor, ""] | None = None,
    skip: Float[Tensor, ""] | None = None,
    unit_rows: bool = False,
) -> None:
    """Move weights and averages by one step of Adam, in place.

    Args:
        weights: Weights, float32, row-major: `W_dec`, or `W_enc.T`.
        grad: Their gradient; it stays as it is.
        mean: Running mean of the gradient.
        square: Running mean of its square.
        step: Number of this step, counted from 1; on the device or the host.
        lr: Learning rate; on the device or the host.
        betas: Weights of the old averages.
        eps: Added to the root of the second average.
        factor: What the gradient is multiplied by first, on the device (clipping); None for 1.
        skip: 1 leaves everything as it is, 0 does not; on the device. None for 0.
        unit_rows: Whether to divide each row of the weights by its norm afterwards.
    """
    for name, part in (("weights", weights), ("mean", mean), ("square", square)):
        assert part.is_contiguous() and part.dtype == torch.float32, f"{name} must be row-major float32"
    m, d = weights.shape
    if isinstance(step, int):
        step = weights.new_full((), step)  # A fill on the device: no copy that the host would wait for.
    if not isinstance(lr, Tensor):
        lr = weights.new_full((), lr)
    columns = tiles.power_of_two(d)
    rows = max(1024 // columns, 1)
    with torch.cuda.device_of(weights):
        _adam[(tiles.cut(m, rows),)](
            weights,
            grad.contiguous(),
            mean,
            square,
            step if factor is None else factor,  # Any pointer will do that is not read.
            step if skip is None else skip,
            step,
            lr,
            1 - betas[0],
            1 - betas[1],
            math.log(betas[0]),
            math.log(betas[1]),
            eps,
            m,
            d,
            CLIP=factor is not None,
            SKIP=skip is not None,
            UNIT=unit_rows,
            ROWS=rows,
            WIDTH=columns,
            num_warps=tiles.warps(rows * columns),
        )
