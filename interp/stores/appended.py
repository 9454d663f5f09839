"""Several stores of one site, one after another, as one store."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.stores.base import RowStore
from interp.stores.items import ItemRuns
from interp.stores.sources import check_row_stores, check_same, joined
from interp.types import Activations, Item


class AppendedStore(RowStore):
    """Rows of the first store, then of the second, and so on; examples are numbered on. Made by `appended`."""

    def __init__(self, stores: Sequence[RowStore]) -> None:
        _check_fit(stores)
        self.stores = tuple(stores)
        first = stores[0]
        self.site, self.d_in, self.geometry = first.site, first.d_in, first.geometry
        self._starts = np.cumsum([0, *(len(store) for store in stores)])
        self.items: Sequence[Item] = ChainedItems([store.items for store in stores])
        self._examples = np.cumsum([0, *(len(store.items) for store in stores)])
        self.provenance = joined([store.provenance for store in stores])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"AppendedStore({len(self.stores)} stores, {str(self.site)!r}: {len(self)} rows of {self.d_in})"

    @functools.cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of the parts' fingerprints, in order."""
        parts = ["appended", *(store.fingerprint for store in self.stores)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def address_hash(self) -> str | None:  # type: ignore[override]
        """Hash of the parts' hashes, where each has one."""
        parts = [(store.address_hash, len(store.items)) for store in self.stores]
        known = all(digest is not None for digest, _ in parts)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest() if known else None

    def rows(self, numbers: Tensor) -> Activations:
        """The rows of the given numbers, in that order.

        Raises:
            IndexError: If the store has no such row.
        """
        numbers = numbers.cpu().long()
        if len(numbers) == 0:
            return self.stores[0].rows(numbers)
        if not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise IndexError(
                f"rows asked for are {int(numbers.min())} to {int(numbers.max())}, but there are {len(self)}."
            )
        which = torch.from_numpy(np.searchsorted(self._starts, numbers.numpy(), side="right") - 1)
        order = torch.argsort(which, stable=True)
        parts = [
            self._renumbered(i, self.stores[i].rows(numbers[which == i] - int(self._starts[i])))
            for i in which.unique().tolist()
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return Activations.concatenate(parts)[back]

    def span(self, start: int, stop: int) -> Activations:
        """A contiguous run of rows."""
        if not 0 <= start < stop <= len(self):
            return self.rows(torch.arange(start, stop))
        return Activations.concatenate(
            [self._renumbered(i, self.stores[i].span(low, high)) for i, low, high in self._pieces(start, stop)]
        )

    def addresses(self, start: int, stop: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Example and position of a contiguous run of rows."""
        parts = [(i, *self.stores[i].addresses(low, high)) for i, low, high in self._pieces(start, stop)]
        example = torch.cat([example + int(self._examples[i]) for i, example, _ in parts])
        return example, torch.cat([position for _, _, position in parts])

    def example_span(self, index: int) -> tuple[int, int]:
        """First row of an example, and the row after its last."""
        i = int(np.searchsorted(self._examples, index, side="right")) - 1
        start, stop = self.stores[i].example_span(index - int(self._examples[i]))
        return start + int(self._starts[i]), stop + int(self._starts[i])

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """For each store that is touched: its number, and which of its rows."""
        for i, (first, end) in enumerate(itertools.pairwise(self._starts.tolist())):
            if max(start, first) < min(stop, end):
                yield i, max(start, first) - first, min(stop, end) - first

    def _renumbered(self, i: int, rows: Activations) -> Activations:
        example = rows.example + int(self._examples[i])
        return Activations(rows.values, example, rows.position, rows.grads, rows.target)


class ChainedItems(ItemRuns):
    """Items of several stores, numbered on."""

    def __init__(self, parts: Sequence[Sequence[Item]]) -> None:
        super().__init__([len(part) for part in parts])
        self._parts = parts

    def item(self, run: int, index: int) -> Item:
        """One item of one store."""
        return self._parts[run][index]


def appended(stores: Sequence[RowStore]) -> AppendedStore:
    """Read several stores of one site as one, in order; nothing is copied.

    Args:
        stores: Stores of the same site, width and model; their datasets may differ.

    Returns:
        A store whose examples are those of the first, then those of the second, and so on, numbered without a gap.

    Raises:
        ValueError: If sites, widths, geometries, models or the kinds of their rows differ.
    """
    return AppendedStore(stores)


def _check_fit(stores: Sequence[RowStore]) -> None:
    check_row_stores(stores)
    first, kind = stores[0], _kind(stores[0])
    for number, other in enumerate(stores[1:], 1):
        check_same("model", ("stores[0]", first), (f"stores[{number}]", other))
        for what, ours, theirs in (
            ("site", str(first.site), str(other.site)),
            ("width", first.d_in, other.d_in),
            ("geometry", first.geometry, other.geometry),
            *((what, value, _kind(other)[what]) for what, value in kind.items()),
        ):
            if ours != theirs:
                raise ValueError(
                    f"stores[{number}] has {what} {theirs}, but stores[0] has {ours}: append rows of one kind, "
                    "harvested and opened with the same arguments."
                )


def _kind(store: RowStore) -> dict[str, object]:
    """What all rows of a store have in common."""
    row = store.span(0, min(1, len(store)))
    return {
        "dtype": row.values.dtype,
        "gradients": row.grads is not None,
        "targets of width": None if row.target is None else row.target.shape[1],
    }
