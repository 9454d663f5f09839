"""Sparse forward and backward of an SAE: nothing of `n x d_sae` elements is made, whatever the method.

The two functions here carry autograd across the kept codes only. Their backward passes sort the codes by feature
once (`Latents.by_feature`) and read each weight gradient off as one `embedding_bag` over the sorted codes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp.types import Latents


def weighted_sums(
    table: Float[Tensor, "m d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " n_plus_1"],
    weights: Float[Tensor, " nnz"],
) -> Float[Tensor, "n d"]:
    """Sum rows of a table, weighted, over each run of indices."""
    return F.embedding_bag(
        indices, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype), include_last_offset=True
    )


def inner_products(left: Float[Tensor, "n d"], table: Float[Tensor, "m d"], support: Latents) -> Float[Tensor, " nnz"]:
    """The inner product of each code's row of `left` with its feature's row of `table`."""
    # The aten operator behind embedding_bag's own backward: one pass, no [nnz, d] in between.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left.contiguous(), table.contiguous(), support.indices, support.offsets, support.rows, 0
    )


def per_feature_sums(values: Float[Tensor, " nnz"], support: Latents) -> Float[Tensor, " d_sae"]:
    """Sum the codes' values of each feature."""
    return torch.bincount(support.indices, weights=values, minlength=support.d_sae).to(values.dtype)


class _KeptPreActs(torch.autograd.Function):
    """Pre-activations at a given support; their values come in already computed, their gradients leave here."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor, values: Tensor, support: Latents
    ) -> Tensor:
        ctx.save_for_backward(x, b_dec, W_enc)
        ctx.support = support
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, b_dec, W_enc = ctx.saved_tensors
        support: Latents = ctx.support
        order, offsets = support.by_feature
        grad_b_enc = per_feature_sums(grad, support)
        grad_W_enc = weighted_sums(x - b_dec, support.rows[order], offsets, grad[order]).T
        # d z / d b_dec = -W_enc, so the m x d product replaces a sum over all codes.
        grad_b_dec = -(W_enc @ grad_b_enc)
        grad_x = weighted_sums(W_enc.T, support.indices, support.offsets, grad) if ctx.needs_input_grad[0] else None
        return grad_x, grad_b_dec, grad_W_enc, grad_b_enc, None, None


class _Decode(torch.autograd.Function):
    """Sum the decoder rows of the kept codes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, support: Latents) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.support = support
        return weighted_sums(W_dec, support.indices, support.offsets, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, W_dec = ctx.saved_tensors
        support: Latents = ctx.support
        grad = grad.contiguous()
        grad_values = inner_products(grad, W_dec, support) if ctx.needs_input_grad[0] else None
        grad_W_dec = None
        if ctx.needs_input_grad[1]:
            order, offsets = support.by_feature
            grad_W_dec = weighted_sums(grad, support.rows[order], offsets, values[order])
        return grad_values, grad_W_dec, None


def kept_pre_acts(
    x: Float[Tensor, "n d_in"],
    b_dec: Float[Tensor, " d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    support: Latents,
) -> Float[Tensor, " nnz"]:
    """Pre-activations `(x - b_dec) @ W_enc + b_enc` at the support, differentiable in the first four.

    Args:
        x: Activations.
        b_dec: Subtracted from the activations.
        W_enc: Encoder.
        b_enc: Encoder bias.
        support: Which pre-activations; its values must be theirs (they are not computed again).
    """
    if torch.is_grad_enabled() and W_enc.requires_grad:
        support.by_feature  # noqa: B018 - sorted before the support is copied, so that both backward passes share it.
    return _KeptPreActs.apply(x, b_dec, W_enc, b_enc, support.values.detach(), support.detach())


def decode(latents: Latents, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "n d_in"]:
    """`latents @ W_dec` over the kept codes, differentiable in both."""
    return _Decode.apply(latents.values, W_dec, latents.detach())
