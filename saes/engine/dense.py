"""The dense twin of the sparse engine, for steps in which a large part of the latents is kept.

Five products of the encoder's size a step, whatever the density: above the break-even the sparse engine's gathers cost
more. Which one runs is decided by `breaks_even`, from counters that a checkpoint holds.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

BREAK_EVEN = {"cpu": 0.12, "cuda": 0.04}
"""Density above which dense is faster: measured at 512 x 8192 on two cores; counted for an H200.

There a dense step multiplies in float32 (10 n m d at 54 TFLOP/s, where the sparse one has 2 n m d of bfloat16 at 790)
and moves 90 bytes more for each of n m entries; a sparse one gathers 20 d + 400 bytes for each code, at 4.3 TB/s. Rows
and latents cancel out, and both launch 115 kernels. Width is left: .083 at 64, .053 at 256, .044 at 768, .040 at 4096.
At small widths a step waits for launches, whichever it is: so this is one number, and no function of the shape.
"""


class DenseLatents:
    """Codes of `n` rows with their zeros; what penalties and counters ask of `Latents`, on a matrix.

    Args:
        values: The codes.
    """

    def __init__(self, values: Float[Tensor, "n d_sae"]) -> None:
        self.values = values
        self.d_sae = values.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    def with_values(self, values: Float[Tensor, "n d_sae"]) -> "DenseLatents":
        """Other values."""
        return DenseLatents(values)

    def detach(self) -> "DenseLatents":
        """The same codes, cut from autograd."""
        return DenseLatents(self.values.detach())

    def spread(self, table: Float[Tensor, " d_sae"]) -> Float[Tensor, " d_sae"]:
        """The number that a table has for the feature of each code, to be broadcast over rows."""
        return table

    def feature_sums(self, values: Float[Tensor, "n d_sae"]) -> Float[Tensor, " d_sae"]:
        """Sum, for each feature, what is given for its codes."""
        return values.sum(0)

    def fired(self) -> Float[Tensor, " d_sae"]:
        """In how many rows each feature has a code that is not zero."""
        # Sums over signs, part by part: fifteen times as fast as one over flags.
        return torch.stack([part.sign().abs_().sum(0) for part in self.values.detach().split(128)]).sum(0)

    def columns(self, features: Int[Tensor, " f"]) -> Float[Tensor, "n f"]:
        """Codes of a few features, one column each, in the order asked."""
        return self.values[:, features]

    def dense(self) -> Float[Tensor, "n d_sae"]:
        """The codes."""
        return self.values


def breaks_even(density: float, device: torch.device) -> bool:
    """Whether a step of this density is faster dense."""
    return density > BREAK_EVEN.get(device.type, BREAK_EVEN["cuda"])


class _Encode(torch.autograd.Function):
    """`(x - b_dec) @ W_enc + b_enc`, without the product that autograd would spend on `b_dec`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor, centred: Tensor) -> Tensor:
        ctx.save_for_backward(centred, W_enc)
        return torch.addmm(b_enc, centred, W_enc)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, W_enc = ctx.saved_tensors
        grad_b_enc = grad.sum(0)
        grad_x = grad @ W_enc.T if ctx.needs_input_grad[0] else None
        # In the strides of W_enc: rows of memory are features.
        return grad_x, -(W_enc @ grad_b_enc), (grad.T @ centred).T, grad_b_enc, None


def pre_acts(
    x: Float[Tensor, "n d_in"],
    b_dec: Float[Tensor, " d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    centred: Float[Tensor, "n d_in"],
) -> Float[Tensor, "n d_sae"]:
    """All pre-activations, differentiable in the first four.

    Args:
        x: Activations.
        b_dec: Subtracted from the activations.
        W_enc: Encoder.
        b_enc: Encoder bias.
        centred: `x - b_dec`.
    """
    return _Encode.apply(x, b_dec, W_enc, b_enc, centred)
