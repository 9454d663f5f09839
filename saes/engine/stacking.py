"""Several SAEs of one width as one: one product with the shared batch, one sparse pass there and back.

Small SAEs keep a GPU waiting for their launches; stacked, their features lie one after another in one encoder and one
decoder, and row i of the j-th SAE is row `j * n + i` of one sparse decode. Every SAE keeps its own hooks, losses and
optimizer: its parameters are views of the stack's, and so are its gradients.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.types import Latents
from saes.engine import sparse
from saes.engine.handover import Handover, handover
from saes.engine.passes import Encoded
from saes.engine.products import is_low, product
from saes.engine.scratch import Scratch
from saes.engine.selection import Candidates, Context, Selected, chunk_rows, concatenated, select

if TYPE_CHECKING:
    from saes.base import SAE


class Stack:
    """SAEs whose parameters are parts of the same four tensors from now on.

    Args:
        saes: Of one width in and out, one type and one way of looking at chunks, as `saes.grouping.groups` finds them.
    """

    def __init__(self, saes: Sequence["SAE"]) -> None:
        self.saes = list(saes)
        edges = list(itertools.accumulate((sae.d_sae for sae in saes), initial=0))
        self.features = [slice(a, b) for a, b in itertools.pairwise(edges)]
        with torch.no_grad():
            self.W_enc = nn.Parameter(torch.cat([sae.W_enc.T for sae in saes]).T)
            self.W_dec = nn.Parameter(torch.cat([sae.W_dec for sae in saes]))
            self.b_enc = nn.Parameter(torch.cat([sae.b_enc for sae in saes]))
            self.b_dec = nn.Parameter(torch.stack([sae.b_dec for sae in saes]))
        for parameter, part in self._parts(*_parameters(self)):
            parameter.data = part.detach()

    def encode(
        self, x: Float[Tensor, "n d_in"], grads: Float[Tensor, "n d_in"] | None, watch: Sequence[Tensor | None]
    ) -> list[Encoded]:
        """What `passes.encode` gives for each SAE.

        Args:
            x: Activations.
            grads: Gradient of a loss at each row, for methods that select by it.
            watch: For each SAE, features whose pre-activations are wanted in all rows.
        """
        # One batch for all: what of b_dec they do not share goes into the bias of the latents, as autograd sees it.
        # Of those that are near: one that an absurd learning rate sent far away would take the others' digits.
        norms = self.b_dec.detach().norm(dim=1, keepdim=True)
        near = norms <= 100 * norms.nan_to_num(torch.inf).amin()
        shared = torch.where(near, self.b_dec.detach(), 0.0).sum(0) / near.sum()
        centred = x - shared
        shifts = [(b - shared) @ self.W_enc[:, own] for b, own in zip(self.b_dec, self.features, strict=True)]
        b_enc = self.b_enc - torch.cat(shifts)
        selected = self._select(centred, b_enc.detach(), grads, [None] * len(watch) if is_low() else watch)
        support = stacked([one.support for one in selected])
        seen = [one.watched for one in selected if one.watched is not None]
        to = handover(self.W_enc, self.W_dec, [one.support for one in selected])
        pre_acts, watched = sparse.kept_pre_acts(
            centred, None, self.W_enc, b_enc, support, centred=centred,
            watch=self._joint(watch), watched=torch.cat(seen, dim=1) if seen else None, again=is_low(),
            to=to,
        )  # fmt: skip
        codes = pre_acts.split([one.support.values.numel() for one in selected])
        columns = _dealt(watched, watch, dim=1)
        found = []
        for sae, one, own, some in zip(self.saes, selected, codes, columns, strict=True):
            values, extras = sae.activate(own, one.support)
            found.append(Encoded(one.support.with_values(values), extras, some, to))
        return found

    def decode(
        self, latents: Sequence[Latents], watch: Sequence[Tensor | None], given: Handover | None = None
    ) -> list[tuple[Float[Tensor, "n d_out"], Float[Tensor, "f d_out"] | None]]:
        """What `passes.decode` gives for each SAE."""
        sorted_already = None if given is None else given.stacked(latents)
        joint = stacked(latents) if sorted_already is None else sorted_already
        recon, rows = sparse.decode_watched(joint, self.W_dec, self._joint(watch), given)
        recons = recon.view(len(self.saes), len(latents[0]), -1) + self.b_dec.unsqueeze(1)
        return list(zip(recons.unbind(), _dealt(rows, watch, dim=0), strict=True))

    def deal_gradients(self) -> None:
        """Give every SAE its part of the gradients."""
        joint = _parameters(self)
        for parameter, part in self._parts(*(torch.zeros_like(p) if p.grad is None else p.grad for p in joint)):
            # A penalty may have reached for the parameter itself.
            parameter.grad = part if parameter.grad is None else parameter.grad + part
        for parameter in joint:
            parameter.grad = None

    def _parts(self, W_enc: Tensor, W_dec: Tensor, b_enc: Tensor, b_dec: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Every parameter of every SAE with its part of such tensors."""
        found: list[tuple[nn.Parameter, Tensor]] = []
        for sae, own, b in zip(self.saes, self.features, b_dec, strict=True):
            found += zip(_parameters(sae), (W_enc[:, own], W_dec[own], b_enc[own], b), strict=True)
        return found

    def _joint(self, watch: Sequence[Tensor | None]) -> Int[Tensor, " f"] | None:
        """Watched features by their places in the stack."""
        found = [some + own.start for some, own in zip(watch, self.features, strict=True) if some is not None]
        return torch.cat(found) if found else None

    @torch.no_grad()
    def _select(self, x: Tensor, b_enc: Tensor, grads: Tensor | None, watch: Sequence[Tensor | None]) -> list[Selected]:
        contexts = [Context(training=sae.training, n=len(x), grads=grads) for sae in self.saes]
        found: list[Selected | None] = [None] * len(self.saes)
        if not self.saes[0].by_feature:
            found = self._choose(x, b_enc, contexts, watch)
            contexts = [replace(context, attempt=1) for context in contexts]
        # Chunks of all rows hold one SAE each anyway; and who was given too little asks alone for more.
        return [
            select(
                x, self.W_enc[:, own], b_enc[own], candidates=sae.candidates, choose=sae.choose, context=context,
                by_feature=sae.by_feature, watch=some,
            ) if chosen is None else chosen
            for sae, own, chosen, context, some in zip(self.saes, self.features, found, contexts, watch, strict=True)
        ]  # fmt: skip

    def _choose(
        self, x: Tensor, b_enc: Tensor, contexts: Sequence[Context], watch: Sequence[Tensor | None]
    ) -> list[Selected | None]:
        """Each SAE's choice among its own features of a product of all; None for one that wants wider candidates."""
        n, chunk = len(x), product(x, self.W_enc, b_enc, by_feature=False, scratch=Scratch())
        parts: list[list[Candidates]] = [[] for _ in self.saes]
        watched = [None if some is None else x.new_empty(n, len(some)) for some in watch]
        size = chunk_rows(len(b_enc), x.device)
        for start in range(0, max(n, 1), size):
            rows = slice(start, start + size)
            pre_acts = chunk(rows)
            for i, (sae, context) in enumerate(zip(self.saes, contexts, strict=True)):
                own, grads = pre_acts[self.features[i]], None if context.grads is None else context.grads[rows]
                parts[i].append(sae.candidates(own, replace(context, start=start, grads=grads)))
                if (some := watch[i]) is not None and (seen := watched[i]) is not None:
                    seen[rows] = own[some].T
        found: list[Selected | None] = []
        for i, (sae, context) in enumerate(zip(self.saes, contexts, strict=True)):
            chosen = sae.choose(concatenated(parts[i]), context)
            support = None if chosen is None else chosen.support(n, sae.d_sae, by_feature=False)
            found.append(None if support is None else Selected(support, watched[i]))
        return found


def _parameters(of: "Stack | SAE") -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, nn.Parameter]:
    """What is stacked."""
    W_dec = of.W_dec
    assert isinstance(W_dec, nn.Parameter)
    return of.W_enc, W_dec, of.b_enc, of.b_dec


def stacked(latents: Sequence[Latents]) -> Latents:
    """Codes of several SAEs for the same `n` rows as those of one: row i of the j-th is row `j * n + i`."""
    edges = list(itertools.accumulate((one.d_sae for one in latents), initial=0))
    values = torch.cat([one.values for one in latents])
    indices = torch.cat([one.indices + edge for one, edge in zip(latents, edges[:-1], strict=True)])
    if latents[0].k and len({one.k for one in latents}) == 1:
        return Latents(values, indices, None, edges[-1], k=latents[0].k)
    ends = list(itertools.accumulate((one.values.numel() for one in latents), initial=0))
    starts = [one.offsets[:-1] + end for one, end in zip(latents, ends[:-1], strict=True)]
    return Latents(values, indices, torch.cat([*starts, indices.new_tensor(ends[-1:])]), edges[-1])


def _dealt(joint: Tensor | None, watch: Sequence[Tensor | None], dim: int) -> list[Tensor | None]:
    """What was made of all watched features, to each SAE its own."""
    if joint is None:
        return [None] * len(watch)
    parts = iter(joint.split([len(some) for some in watch if some is not None], dim=dim))
    return [None if some is None else next(parts) for some in watch]
