"""The forward pass of an SAE, sparse or dense, with all that its losses ask for."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp.types import Latents
from saes.engine import dense, sparse
from saes.engine.dense import DenseLatents
from saes.engine.handover import Handover, handover
from saes.engine.products import is_low
from saes.engine.selection import Context, choose_among, select

if TYPE_CHECKING:
    from saes.base import SAE


@dataclass(frozen=True)
class Encoded:
    """Codes, and what they were made of.

    Args:
        latents: The codes, with autograd; dense ones if asked for.
        extras: What the method's activation leaves for penalties, by name.
        watched: Pre-activations of the watched features in all rows, with autograd; None where none were.
        handover: For `decode`, where kernels are wanted.
    """

    latents: Latents | DenseLatents
    extras: Mapping[str, Tensor]
    watched: Float[Tensor, "n f"] | None = None
    handover: Handover | None = None


def encode(
    sae: "SAE",
    x: Float[Tensor, "n d_in"],
    grads: Float[Tensor, "n d_in"] | None,
    *,
    watch: Int[Tensor, " f"] | None,
    as_dense: bool,
) -> Encoded:
    """Encode as the SAE's hooks say.

    Under `low_precision` the product of the sparse path takes bfloat16 inputs, and what it chose is computed again;
    the dense path stays in the SAE's precision.

    Args:
        sae: Whose encoder and hooks.
        x: Activations.
        grads: Gradient of a loss at each row, for methods that select by it.
        watch: Features whose pre-activations are wanted in all rows.
        as_dense: Whether to make every pre-activation at once.
    """
    centred = (x - sae.b_in).detach()
    context = Context(training=sae.training, n=len(x), grads=grads)
    if as_dense:
        return _encode_dense(sae, x, centred, watch, context)
    selected = select(
        centred,
        sae.W_enc,
        sae.b_enc,
        candidates=sae.candidates,
        choose=sae.choose,
        context=context,
        by_feature=sae.by_feature,
        watch=None if is_low() else watch,
    )
    support, to = selected.support, handover(sae.W_enc, sae.unit_rows)
    pre_acts, watched = sparse.kept_pre_acts(
        x, sae.b_in, sae.W_enc, sae.b_enc, support,
        centred=centred, watch=watch, watched=selected.watched, again=is_low(), to=to,
    )  # fmt: skip
    values, extras = sae.activate(pre_acts, support)
    return Encoded(support.with_values(values), extras, watched, to)


def _encode_dense(sae: "SAE", x: Tensor, centred: Tensor, watch: Tensor | None, context: Context) -> Encoded:
    pre_acts = dense.pre_acts(x, sae.b_in, sae.W_enc, sae.b_enc, centred)
    values, extras = sae.activate(pre_acts, DenseLatents(pre_acts.detach()))
    if sae.bound() is None:
        support = choose_among(
            pre_acts.detach(),
            candidates=sae.candidates,
            choose=sae.choose,
            context=context,
            by_feature=sae.by_feature,
        )
        kept = torch.zeros_like(pre_acts, dtype=torch.bool)
        kept[support.rows, support.indices] = True
        values = torch.where(kept, values, values.new_zeros(()))
    return Encoded(DenseLatents(values), extras, None if watch is None else pre_acts[:, watch])


def decode(
    latents: Latents | DenseLatents,
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    watch: Int[Tensor, " f"] | None = None,
    given: Handover | None = None,
) -> tuple[Float[Tensor, "n d_out"], Float[Tensor, "f d_out"] | None]:
    """`latents @ W_dec + b_dec`, and the decoder rows of watched features, both with autograd."""
    if isinstance(latents, DenseLatents):
        return torch.addmm(b_dec, latents.values, W_dec), None if watch is None else W_dec[watch]
    recon, watched = sparse.decode_watched(latents, W_dec, watch, given)
    recon += b_dec
    return recon, watched


def decode_prefixes(
    latents: Latents | DenseLatents,
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    prefixes: Sequence[int],
    watch: Int[Tensor, " f"] | None = None,
) -> tuple[Float[Tensor, "q n d_out"], Float[Tensor, "f d_out"] | None]:
    """What each prefix of the latents decodes to, and the decoder rows of watched features, with autograd.

    Args:
        latents: Codes.
        W_dec: Decoder.
        b_dec: Decoder bias, a part of every prefix.
        prefixes: Numbers of first latents, ascending to all of them.
        watch: Features whose decoder rows are wanted.
    """
    n, edges = len(latents), [0, *prefixes]
    if isinstance(latents, DenseLatents):
        parts = [latents.values[:, a:b] @ W_dec[a:b] for a, b in itertools.pairwise(edges)]
        return torch.stack(parts).cumsum(0) + b_dec, None if watch is None else W_dec[watch]
    # A row of each group of features is a row of its own, so that one pass decodes all groups.
    borders = torch.tensor(prefixes[:-1], device=latents.indices.device, dtype=latents.indices.dtype)
    group = torch.bucketize(latents.indices, borders, right=True)
    rows, order = torch.sort(group * n + latents.rows, stable=True)
    apart = Latents.from_pairs(latents.values[order], rows, latents.indices[order], len(prefixes) * n, latents.d_sae)
    if torch.is_grad_enabled() and W_dec.requires_grad:
        apart.by_feature  # noqa: B018 - sorted before it is copied, for the backward pass.
    sums, watched = sparse.decode_watched(apart, W_dec, watch)
    recons = _Cumulative.apply(sums, len(prefixes))
    recons += b_dec
    return recons.view(len(prefixes), n, -1), watched


class _Cumulative(torch.autograd.Function):
    """Each of `q` blocks of rows becomes the sum of those up to it, in the memory it is given."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, q: int) -> Tensor:
        ctx.q = q
        ctx.mark_dirty(blocks)
        for before, block in itertools.pairwise(blocks.chunk(q)):
            block += before
        return blocks

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        found = grad.clone()
        for after, block in itertools.pairwise(reversed(found.chunk(ctx.q))):
            block += after
        return found, None
