"""What stores over several sites share: the rows of all, told apart by nothing but where they were read."""

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.stores.base import RowStore
from interp.stores.sources import check_row_stores, check_same
from interp.types import Activations, Item

_SPAN = 2**20  # addresses compared at once: 32 MB


class AlignedStore(RowStore):
    """Several stores read by the same row numbers; a subclass gives `_joined`, and sites and widths.

    Args:
        stores: The stores by the names that messages give them; the first gives addresses and items.

    Raises:
        ValueError: If their rows are not the same positions of the same examples, of one model and dataset.
    """

    def __init__(self, stores: Mapping[str, RowStore]) -> None:
        check_aligned(stores)
        self.stores = tuple(stores.values())
        self.geometry = self.stores[0].geometry
        self.items: Sequence[Item] = self.stores[0].items

    def __len__(self) -> int:
        return len(self.stores[0])

    @functools.cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of the parts' fingerprints, in order."""
        parts = [type(self).__name__, *(store.fingerprint for store in self.stores)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def address_hash(self) -> str | None:  # type: ignore[override]
        """That of the first store: all have the same addresses."""
        return self.stores[0].address_hash

    def rows(self, numbers: Tensor) -> Activations:
        """The rows of the given numbers, in that order."""
        return self._joined([store.rows(numbers) for store in self.stores])

    def span(self, start: int, stop: int) -> Activations:
        """A contiguous run of rows."""
        return self._joined([store.span(start, stop) for store in self.stores])

    def addresses(self, start: int, stop: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Example and position of a contiguous run of rows."""
        return self.stores[0].addresses(start, stop)

    def example_span(self, index: int) -> tuple[int, int]:
        """First row of an example, and the row after its last."""
        return self.stores[0].example_span(index)

    def _joined(self, parts: Sequence[Activations]) -> Activations:
        raise NotImplementedError


def check_aligned(stores: Mapping[str, RowStore]) -> None:
    """Refuse stores whose rows do not belong together.

    Addresses are compared by the hashes of their files where a harvest wrote both, else in spans: no values are read.

    Raises:
        ValueError: If there is none, one cannot be read by row number, or models, datasets, geometries, lengths or
            addresses differ; the first address that differs is named.
    """
    check_row_stores(list(stores.values()))
    (one, first), *others = stores.items()
    for name, other in others:
        for what in ("model", "dataset"):
            check_same(what, (one, first), (name, other))
        if first.geometry != other.geometry:
            raise ValueError(f"{name} has {other.geometry}, but {one} has {first.geometry}: take sites that agree.")
        if first.address_hash is None or first.address_hash != other.address_hash:
            row = _first_difference(first, other)
            if row is not None:
                raise ValueError(
                    f"{name} ({other.site}) is not aligned with {one} ({first.site}): row {row} is "
                    f"{_address(other, row)}, but {_address(first, row)} in {one} ({len(other)} and {len(first)} "
                    "rows): harvest both sites in one call."
                )


def _first_difference(first: RowStore, other: RowStore) -> int | None:
    """The first row that has another address, or is in one of the stores only."""
    short = min(len(first), len(other))
    for start, stop in itertools.pairwise([*range(0, short, _SPAN), short]):
        a, b = (torch.stack(store.addresses(start, stop)) for store in (first, other))
        differs = (a != b).any(dim=0).nonzero()
        if len(differs):
            return start + int(differs[0])
    return None if len(first) == len(other) else short


def _address(store: RowStore, row: int) -> str:
    if row >= len(store):
        return "past the end"
    example, position = store.addresses(row, row + 1)
    return f"example {int(example[0])}, position {int(position[0])}"
