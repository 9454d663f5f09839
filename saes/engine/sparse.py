"""Sparse forward and backward of an SAE: nothing of `n x d_sae` elements is made, whatever the method.

Two functions carry autograd across the kept codes only. Their backward passes sort the codes by feature once
(`Latents.by_feature`) and read each weight gradient off as one `embedding_bag` over the sorted codes. Features that are
watched (dead ones, for AuxK) go along in all rows: their gradients are added to those of the codes in place, where
autograd would make and add another gradient of the whole matrix.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp.types import Latents
from saes.engine.kernels import availability


def weighted_sums(
    table: Float[Tensor, "m d"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " n_plus_1"],
    weights: Float[Tensor, " nnz"],
) -> Float[Tensor, "n d"]:
    """Sum rows of a table, weighted, over each run of indices."""
    if availability.wanted(table):
        from saes.engine.kernels import sums

        return sums.weighted_sums(table, indices, offsets, weights)
    return F.embedding_bag(
        indices, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype), include_last_offset=True
    )


def inner_products(left: Float[Tensor, "n d"], table: Float[Tensor, "m d"], support: Latents) -> Float[Tensor, " nnz"]:
    """The inner product of each code's row of `left` with its feature's row of `table`."""
    if availability.wanted(table):
        from saes.engine.kernels import products

        return products.inner_products(left, table, _shared(support.rows, support, left), support.indices)
    by, rows = support.by_feature, _shared(support.by_feature.rows, support, left)
    # The aten operator behind embedding_bag's own backward: one pass, no [nnz, d] in between. By feature, because rows
    # to be gathered are fewer than features, and stay in the cache: 0.55 to 0.6 of the time that it takes by row.
    found = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        table.contiguous(), left.contiguous(), rows, by.offsets, by.features, 0
    )
    return torch.empty_like(found).scatter_(0, by.order, found)


def _shared(rows: Tensor, support: Latents, left: Tensor) -> Tensor:
    """Rows of a support as rows of `left`: codes of stacked SAEs have as many blocks of rows, all of the same ones."""
    return rows if len(support) == len(left) else rows % len(left)


class _Encode(torch.autograd.Function):
    """Pre-activations at a given support, and of watched features in all rows.

    Both come in already computed; their gradients leave here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        b_dec: Tensor | None,
        W_enc: Tensor,
        b_enc: Tensor,
        centred: Tensor,
        support: Latents,
        watch: Tensor | None,
        watched: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(centred, W_enc)
        ctx.support, ctx.watch = support, watch
        return support.values.view_as(support.values), None if watched is None else watched.view_as(watched)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_watched: Tensor | None) -> tuple[Tensor | None, ...]:
        centred, W_enc = ctx.saved_tensors
        support: Latents = ctx.support
        grad = torch.zeros_like(support.values) if grad is None else grad
        grad_b_enc = support.feature_sums(grad)
        by = support.by_feature
        rows = _shared(by.rows, support, centred)
        grad_W = weighted_sums(centred, rows, by.offsets, grad.index_select(0, by.order))
        grad_x = weighted_sums(W_enc.T, support.indices, support.offsets, grad) if ctx.needs_input_grad[0] else None
        if grad_watched is not None:
            grad_W.index_add_(0, ctx.watch, grad_watched.T @ centred)
            grad_b_enc.index_add_(0, ctx.watch, grad_watched.sum(0))
            if grad_x is not None:
                grad_x += grad_watched @ W_enc.T[ctx.watch]
        # d z / d b_dec = -W_enc, so the m x d product replaces a sum over all codes.
        grad_b_dec = -(W_enc @ grad_b_enc) if ctx.needs_input_grad[1] else None
        return grad_x, grad_b_dec, grad_W.T, grad_b_enc, None, None, None, None


class _Decode(torch.autograd.Function):
    """Sum the decoder rows of the kept codes; the rows of watched features go along."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, W_dec: Tensor, support: Latents, watch: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, W_dec)
        ctx.support, ctx.watch = support, watch
        return weighted_sums(W_dec, support.indices, support.offsets, values), None if watch is None else W_dec[watch]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_watched: Tensor | None) -> tuple[Tensor | None, ...]:
        values, W_dec = ctx.saved_tensors
        support: Latents = ctx.support
        grad_values = grad_W_dec = None
        if grad is not None:
            grad = grad.contiguous()
            if ctx.needs_input_grad[0]:
                grad_values = inner_products(grad, W_dec, support)
            if ctx.needs_input_grad[1]:
                by = support.by_feature
                grad_W_dec = weighted_sums(grad, by.rows, by.offsets, values.index_select(0, by.order))
        if grad_watched is not None and ctx.needs_input_grad[1]:
            grad_W_dec = torch.zeros_like(W_dec) if grad_W_dec is None else grad_W_dec
            grad_W_dec.index_add_(0, ctx.watch, grad_watched)
        return grad_values, grad_W_dec, None, None


def kept_pre_acts(
    x: Float[Tensor, "n d_in"],
    b_dec: Float[Tensor, " d_in"] | None,
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    support: Latents,
    *,
    centred: Float[Tensor, "n d_in"] | None = None,
    watch: Int[Tensor, " f"] | None = None,
    watched: Float[Tensor, "n f"] | None = None,
    again: bool = False,
) -> tuple[Float[Tensor, " nnz"], Float[Tensor, "n f"] | None]:
    """Pre-activations `(x - b_dec) @ W_enc + b_enc` at the support, differentiable in the first four.

    Args:
        x: Activations.
        b_dec: Subtracted from the activations; None where nothing is.
        W_enc: Encoder.
        b_enc: Encoder bias.
        support: Which pre-activations; its values must be theirs, unless they are computed again.
        centred: `x - b_dec`, where it is at hand.
        watch: Features whose pre-activations are wanted in all rows.
        watched: Theirs, already computed.
        again: Whether to compute both again: a product of low precision has chosen them.

    Returns:
        Those of the support, and those of the watched features (None where none are).
    """
    if torch.is_grad_enabled() and W_enc.requires_grad:
        support.by_feature  # noqa: B018 - sorted before the support is copied, so that both backward passes share it.
    if centred is None:
        centred = (x if b_dec is None else x - b_dec).detach()
    if again:
        support, watched = _recomputed(centred, W_enc, b_enc, support, watch)
    return _Encode.apply(x, b_dec, W_enc, b_enc, centred, support.detach(), watch, watched)


@torch.no_grad()
def _recomputed(
    centred: Tensor, W_enc: Tensor, b_enc: Tensor, support: Latents, watch: Tensor | None
) -> tuple[Latents, Tensor | None]:
    values = inner_products(centred, W_enc.T, support).add_(b_enc.index_select(0, support.indices))
    watched = None if watch is None else torch.addmm(b_enc[watch], centred, W_enc[:, watch])
    return support.with_values(values), watched


def decode(latents: Latents, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "n d_in"]:
    """`latents @ W_dec` over the kept codes, differentiable in both."""
    return decode_watched(latents, W_dec, None)[0]


def decode_watched(
    latents: Latents, W_dec: Float[Tensor, "d_sae d_in"], watch: Int[Tensor, " f"] | None
) -> tuple[Float[Tensor, "n d_in"], Float[Tensor, "f d_in"] | None]:
    """`latents @ W_dec`, and the decoder rows of watched features, whose gradients join those of the codes."""
    return _Decode.apply(latents.values, W_dec, latents.detach(), watch)
