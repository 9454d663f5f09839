"""The encoder's product, chunk by chunk: in full precision, or of bfloat16 inputs to choose by.

Tensor cores make a product of bfloat16 inputs in a tenth of the time of a float32 one (counted, for an H200). It only
says which pre-activations are kept: those are computed again (`sparse.kept_pre_acts`), so that codes, losses and
gradients are those of full precision.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from saes.engine.scratch import Scratch

_low = False


@contextlib.contextmanager
def low_precision(wanted: bool) -> Iterator[None]:
    """Let products take bfloat16 inputs while it lasts.

    A switch of the module and no argument, so that it need not pass through what methods override.
    """
    global _low
    before, _low = _low, wanted
    try:
        yield
    finally:
        _low = before


def is_low() -> bool:
    """Whether products take bfloat16 inputs, so that what is kept of them must be computed again."""
    return _low


def by_row(device: torch.device, by_feature: bool) -> bool:
    """Whether a chunk lies in memory a row after a row, and hooks see it transposed: so a GPU selects in rows."""
    return device.type == "cuda" and not by_feature


def product(
    x: Float[Tensor, "n d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    *,
    by_feature: bool,
    scratch: Scratch,
) -> Callable[[slice], Tensor]:
    """What gives chunks of the pre-activations, `[features, rows]`, each valid until the next one is asked for.

    Args:
        x: Activations, already less `b_dec`.
        W_enc: Encoder.
        b_enc: Encoder bias.
        by_feature: Whether a chunk is some features of all rows, instead of all features of some rows.
        scratch: Where chunks are written.
    """
    W, low, swapped = W_enc.T, _low, by_row(x.device, by_feature)
    if low:
        x, W = _low_inputs(x, W, b_enc)

    def chunk(part: slice) -> Tensor:
        features, rows = (part, slice(None)) if by_feature else (slice(None), part)
        b, left, right = b_enc[features, None], W[features], x[rows]
        if swapped:
            b, left, right = b[:, 0], right, left
        out = scratch("pre_acts", b_enc, len(left), len(right))
        if not low:
            torch.addmm(b, left, right.T, out=out)
        elif x.is_cuda:
            torch.mm(left, right.T, out_dtype=torch.float32, out=out)
        else:
            out.copy_(torch.mm(left, right.T))
        return out.T if swapped else out

    return chunk


def _low_inputs(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides of the product in bfloat16, with the bias in two columns more: adding it later would cost a pass."""
    d = x.shape[1]
    columns = -(-(d + 2) // 8) * 8  # Rows of a multiple of 16 bytes.
    x_low = x.new_ones(len(x), columns, dtype=torch.bfloat16)
    W_low = W.new_zeros(len(W), columns, dtype=torch.bfloat16)
    x_low[:, :d], W_low[:, :d], W_low[:, d] = x, W, b
    W_low[:, d + 1] = b - W_low[:, d]  # What the first column cannot hold.
    return x_low, W_low
