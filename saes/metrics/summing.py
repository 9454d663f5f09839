"""One pass over a store: the statistics of every metric, summed by example."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import Activations, ActivationStore, Directions, Latents
from saes.base import SAE
from saes.metrics.base import Additive, RowMetric, Rows
from saes.metrics.density import firing_counts


class Pass:
    """Reads rows in stored order, once for their mean and once for the statistics.

    Args:
        directions: What is judged.
        store: The rows.
        size: Rows at a time.
        max_rows: First rows to read; None for all.
    """

    def __init__(self, directions: Directions, store: ActivationStore, size: int, max_rows: int | None) -> None:
        self.directions, self.store, self.size = directions, store, size
        self.left = len(store) if max_rows is None else min(max_rows, len(store))
        self.has_gradients = False
        self.mean = self._mean()

    def _batches(self) -> Iterator[tuple[Activations, Tensor]]:
        """Rows, and what should be given back for each, on the directions' device."""
        left, W_dec = self.left, self.directions.W_dec
        for batch in self.store.batches(self.size, seed=None):
            batch = batch[:left].to(W_dec.device, W_dec.dtype)
            left -= len(batch)
            yield batch, batch.values if batch.target is None else batch.target
            if left == 0:
                return

    def _mean(self) -> Float[Tensor, " d_out"]:
        total, n = torch.zeros(()), 0
        for batch, x in self._batches():
            total, n = total.to(x.device) + x.double().sum(dim=0), n + len(batch)
            self.has_gradients = batch.grads is not None
        return total / n

    def sums(
        self, kinds: Sequence[RowMetric], *, by_gradient: bool = False
    ) -> tuple[dict[Additive, Float[Tensor, "e q"]], Int[Tensor, " d_sae"], Int[Tensor, " e"]]:
        """Statistics of each example; rows in which each feature fires; rows of each example.

        Args:
            kinds: What is to be summed.
            by_gradient: Whether the directions choose their latents by the rows' gradients.
        """
        e, device = len(self.store.items), self.mean.device
        sums: dict[Additive, Tensor] = {}
        counts = torch.zeros(self.directions.d_sae, dtype=torch.long, device=device)
        rows_of = torch.zeros(e, dtype=torch.long, device=device)
        origin = self.directions.decode(_no_codes(self.directions))[0]
        for batch, x in self._batches():
            given = (batch.values, batch.grads) if by_gradient else (batch.values,)
            latents = self.directions.encode(*given)
            recon = self.directions.decode(latents)
            if isinstance(self.directions, SAE):
                recon = self.directions.bypassed(recon, batch.values)
            rows = Rows(x, _fitting(recon, x), latents, self.mean, origin)
            counts += firing_counts(latents)
            rows_of += torch.bincount(batch.example, minlength=e)
            for metric in kinds:
                part = metric.statistics(rows)
                total = sums.setdefault(metric, part.new_zeros(e, part.shape[1]))
                total.index_add_(0, batch.example, part)
        return {m: part.cpu() for m, part in sums.items()}, counts.cpu(), rows_of.cpu()


def _fitting(recon: Tensor, x: Tensor) -> Tensor:
    if recon.shape != x.shape:
        raise ValueError(
            f"directions give back width {recon.shape[1]}, but the store asks for {x.shape[1]}: "
            "evaluate a transcoder on the paired store of its two sites, an SAE on a store without targets."
        )
    return recon


def _no_codes(directions: Directions) -> Latents:
    """One row in which nothing fires."""
    W_dec = directions.W_dec
    none = torch.zeros(0, dtype=torch.long, device=W_dec.device)
    return Latents(W_dec.new_zeros(0), none, none.new_zeros(2), directions.d_sae)
