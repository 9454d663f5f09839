"""The dense twin of the sparse engine, for steps in which a large part of the latents is kept.

Five products of the encoder's size a step, whatever the density: above the break-even the sparse engine's gathers cost
more. Which one runs is decided by `breaks_even`, from counters that a checkpoint holds.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from saes.engine.scratch import Scratch

BREAK_EVEN = {"cpu": 0.12, "cuda": 0.0054}
"""Density above which dense is faster: measured at 512 x 8192 on two cores; counted for an H200."""


class DenseLatents:
    """Codes of `n` rows with their zeros; what penalties and counters ask of `Latents`, on a matrix.

    Args:
        values: The codes.
        scratch: Buffers for matrices of their size: fresh memory costs a fifth of a product each time.
    """

    def __init__(self, values: Float[Tensor, "n d_sae"], scratch: Scratch | None = None) -> None:
        self.values = values
        self.scratch = scratch or Scratch()
        self.d_sae = values.shape[1]

    def __len__(self) -> int:
        return len(self.values)

    def with_values(self, values: Float[Tensor, "n d_sae"]) -> "DenseLatents":
        """Other values."""
        return DenseLatents(values, self.scratch)

    def detach(self) -> "DenseLatents":
        """The same codes, cut from autograd."""
        return self.with_values(self.values.detach())

    def spread(self, table: Float[Tensor, " d_sae"]) -> Float[Tensor, " d_sae"]:
        """The number that a table has for the feature of each code, to be broadcast over rows."""
        return table

    def feature_sums(self, values: Float[Tensor, "n d_sae"]) -> Float[Tensor, " d_sae"]:
        """Sum, for each feature, what is given for its codes."""
        return values.sum(0)

    def fired(self) -> Float[Tensor, " d_sae"]:
        """In how many rows each feature has a code that is not zero."""
        sign = torch.sign(self.values.detach(), out=self.scratch("sign", self.values, *self.values.shape))
        return sign.abs_().sum(0)

    def dense(self) -> Float[Tensor, "n d_sae"]:
        """The codes."""
        return self.values


def breaks_even(density: float, device: torch.device) -> bool:
    """Whether a step of this density is faster dense."""
    return density > BREAK_EVEN.get(device.type, BREAK_EVEN["cuda"])


class _Encode(torch.autograd.Function):
    """`(x - b_dec) @ W_enc + b_enc`, without the product that autograd would spend on `b_dec`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor, centred: Tensor, scratch: Scratch
    ) -> Tensor:
        ctx.save_for_backward(centred, W_enc)
        return torch.addmm(b_enc, centred, W_enc, out=scratch("pre_acts", centred, len(centred), len(b_enc)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, W_enc = ctx.saved_tensors
        grad_b_enc = grad.sum(0)
        grad_x = grad @ W_enc.T if ctx.needs_input_grad[0] else None
        # In the strides of W_enc: rows of memory are features.
        return grad_x, -(W_enc @ grad_b_enc), (grad.T @ centred).T, grad_b_enc, None, None


class _Positive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre_acts: Tensor, scratch: Scratch) -> Tensor:
        codes = torch.clamp_min(pre_acts, 0.0, out=scratch("codes", pre_acts, *pre_acts.shape))
        ctx.save_for_backward(codes)
        ctx.scratch = scratch
        return codes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        out = ctx.scratch("grad_pre_acts", codes, *codes.shape)
        return torch.ops.aten.threshold_backward.grad_input(grad, codes, 0, grad_input=out), None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, scratch: Scratch) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.scratch = scratch
        return values @ W_dec

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        values, W_dec = ctx.saved_tensors
        out = ctx.scratch("grad_codes", values, *values.shape)
        return torch.mm(grad, W_dec.T, out=out), values.T @ grad, None


def pre_acts(
    x: Float[Tensor, "n d_in"],
    b_dec: Float[Tensor, " d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    centred: Float[Tensor, "n d_in"],
    scratch: Scratch,
) -> Float[Tensor, "n d_sae"]:
    """All pre-activations, differentiable in the first four.

    Args:
        x: Activations.
        b_dec: Subtracted from the activations.
        W_enc: Encoder.
        b_enc: Encoder bias.
        centred: `x - b_dec`.
        scratch: Where they are written.
    """
    return _Encode.apply(x, b_dec, W_enc, b_enc, centred, scratch)


def positive(pre_acts: Float[Tensor, "..."], support: Any) -> Float[Tensor, "..."]:
    """The positive part of pre-activations, differentiable; of dense ones, in their buffers."""
    return _Positive.apply(pre_acts, support.scratch) if isinstance(support, DenseLatents) else torch.relu(pre_acts)


def decode(latents: DenseLatents, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "n d_in"]:
    """`latents @ W_dec`, differentiable in both."""
    return _Decode.apply(latents.values, W_dec, latents.scratch)
