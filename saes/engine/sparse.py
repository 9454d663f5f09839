"""Sparse forward and backward of an SAE: nothing of `n x d_sae` elements is made, whatever the method.

Two functions carry autograd across the kept codes only. Their backward passes sort the codes by feature once
(`Latents.by_feature`) and read each weight gradient off as one `embedding_bag` over the sorted codes. Features that are
watched (dead ones, for AuxK) go along in all rows: their gradients are added to those of the codes in place, where
autograd would make and add another gradient of the whole matrix. With kernels, one pass makes both weight gradients.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp.types import Latents
from saes.engine.handover import Handover
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


def sums_by_feature(
    table: Float[Tensor, "n d"], support: Latents, weights: Float[Tensor, " nnz"]
) -> Float[Tensor, "d_sae d"]:
    """For each feature, the sum of the rows of its codes, weighted: the gradient of a weight matrix."""
    by = support.by_feature
    return weighted_sums(table, _shared(by.rows, support, table), by.offsets, weights.index_select(0, by.order))


def _shared(rows: Tensor, support: Latents, left: Tensor) -> Tensor:
    """Rows of a support as rows of `left`: codes of stacked SAEs have as many blocks of rows, all of the same ones."""
    return rows if len(support) == len(left) else rows % len(left)


class _Encode(torch.autograd.Function):
    """Pre-activations at a given support, and of watched features in all rows.

    Both come in already computed; their gradients leave here. So does that of W_dec, where it is given (`Handover`).
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
        W_dec: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(centred, W_enc)
        ctx.support, ctx.watch = support, watch
        found = support.values.view_as(support.values), None if watched is None else watched.view_as(watched)
        if W_dec is None:
            return *found, None, None, None
        zero, rows = W_dec.new_zeros(()), None if watch is None else W_dec[watch]
        return *found, zero.expand(len(support), W_dec.shape[1]), zero.expand(len(support.values)), rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, grad_watched, grad_recon, codes, grad_rows = grads
        centred, W_enc = ctx.saved_tensors
        support: Latents = ctx.support
        grad_x = grad_b_dec = grad_W = grad_b_enc = grad_W_dec = None
        if grad is None and grad_watched is None and ctx.needs_input_grad[8]:
            # Nothing but a decode was reached: W_enc has no gradient, which is not one of zeros.
            if grad_recon is not None and codes is not None:
                grad_W_dec = sums_by_feature(grad_recon, support, codes)
        else:
            grad = torch.zeros_like(support.values) if grad is None else grad
            grad_W, grad_b_enc, grad_W_dec = _weight_gradients(support, centred, grad, grad_recon, codes)
            grad_x = weighted_sums(W_enc.T, support.indices, support.offsets, grad) if ctx.needs_input_grad[0] else None
            if grad_watched is not None:
                grad_W.index_add_(0, ctx.watch, grad_watched.T @ centred)
                grad_b_enc.index_add_(0, ctx.watch, grad_watched.sum(0))
                if grad_x is not None:
                    grad_x += grad_watched @ W_enc.T[ctx.watch]
            # d z / d b_dec = -W_enc, so the m x d product replaces a sum over all codes.
            grad_b_dec = -(W_enc @ grad_b_enc) if ctx.needs_input_grad[1] else None
            grad_W = grad_W.T
        if grad_rows is not None:
            grad_W_dec = W_enc.new_zeros(W_enc.T.shape) if grad_W_dec is None else grad_W_dec
            grad_W_dec.index_add_(0, ctx.watch, grad_rows)
        return grad_x, grad_b_dec, grad_W, grad_b_enc, None, None, None, None, grad_W_dec


def _weight_gradients(
    support: Latents, centred: Tensor, grad: Tensor, grad_recon: Tensor | None, codes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of encoder and encoder bias, and of the decoder where a decode has handed over what it is made of."""
    if grad_recon is None or codes is None:
        return sums_by_feature(centred, support, grad), support.feature_sums(grad), None
    from saes.engine.kernels import gradients

    rows, by = support.rows, support.by_feature
    dec, enc, bias = gradients.weight_gradients(grad_recon, centred, codes, grad, rows, by.order, by.offsets)
    return enc, bias, dec


class _Decode(torch.autograd.Function):
    """Sum the decoder rows of the kept codes; the rows of watched features go along.

    Where the encode's node makes W_dec's gradient, what that is made of leaves here as the gradients of two tensors.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, W_dec: Tensor, support: Latents, watch: Tensor | None, *ends: Tensor | None
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
                grad_W_dec = sums_by_feature(grad, support, values)
        if grad_watched is not None and ctx.needs_input_grad[1]:
            grad_W_dec = torch.zeros_like(W_dec) if grad_W_dec is None else grad_W_dec
            grad_W_dec.index_add_(0, ctx.watch, grad_watched)
        handed = (grad, values) if grad is not None and ctx.needs_input_grad[4] else (None, None)
        return grad_values, grad_W_dec, None, None, *handed


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
    to: Handover | None = None,
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
        to: Takes what a decode needs for W_dec's gradient to be made here too.

    Returns:
        Those of the support, and those of the watched features (None where none are).
    """
    if torch.is_grad_enabled() and W_enc.requires_grad:
        support.by_feature  # noqa: B018 - sorted before the support is copied, so that both backward passes share it.
    if centred is None:
        centred = (x if b_dec is None else x - b_dec).detach()
    if again:
        support, watched = _recomputed(centred, W_enc, b_enc, support, watch)
    W_dec = None if to is None else to.W_dec
    pre_acts, watched, *given = _Encode.apply(x, b_dec, W_enc, b_enc, centred, support.detach(), watch, watched, W_dec)
    if to is not None:
        to.give(support, *given)
    return pre_acts, watched


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
    latents: Latents,
    W_dec: Float[Tensor, "d_sae d_in"],
    watch: Int[Tensor, " f"] | None,
    given: Handover | None = None,
) -> tuple[Float[Tensor, "n d_in"], Float[Tensor, "f d_in"] | None]:
    """`latents @ W_dec`, and the decoder rows of watched features, whose gradients join those of the codes.

    Args:
        latents: Codes.
        W_dec: Decoder.
        watch: Features whose rows are wanted: those of the encode.
        given: From the encode of these codes, so that it makes W_dec's gradient along with its own.
    """
    taken = None if given is None else given.take(latents, W_dec)
    if taken is None:
        return _Decode.apply(latents.values, W_dec, latents.detach(), watch, None, None)
    recon, codes, rows = taken
    assert (watch is None) == (rows is None), "encode and decode watch the same features"
    return _Decode.apply(latents.values, W_dec.detach(), latents.detach(), None, recon, codes)[0], rows
