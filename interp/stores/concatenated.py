"""Several sites side by side, as one wide row (crosscoders)."""

import re
from collections.abc import Sequence

import torch

from interp.stores.aligned import AlignedStore
from interp.stores.base import RowStore
from interp.types import Activations, Site


class ConcatenatedStore(AlignedStore):
    """Rows of several stores, one after another along the width. Made by `concatenated`.

    `sites` and `widths` tell the parts; `site` is a name for all of them, which no model has a module of. Gradients
    are given where every store has them.
    """

    def __init__(self, stores: Sequence[RowStore]) -> None:
        super().__init__({f"stores[{i}]": store for i, store in enumerate(stores)})
        self.sites = tuple(store.site for store in stores)
        self.widths = tuple(store.d_in for store in stores)
        # A site's string holds each of these signs once; the parts' own become colons, so that it reads back.
        self.site = Site("+".join(re.sub("[@#]", ":", str(site)) for site in self.sites))
        self.d_in = sum(self.widths)
        about = {"site": str(self.site), "sites": [str(site) for site in self.sites], "widths": list(self.widths)}
        self.provenance = {**stores[0].provenance, **about}

    def __repr__(self) -> str:
        return f"ConcatenatedStore({str(self.site)!r}: {len(self)} rows of {self.d_in})"

    def _joined(self, parts: Sequence[Activations]) -> Activations:
        grads = [part.grads for part in parts if part.grads is not None]
        return Activations(
            torch.cat([part.values for part in parts], dim=1),
            parts[0].example,
            parts[0].position,
            torch.cat(grads, dim=1) if len(grads) == len(parts) else None,
        )


def concatenated(stores: Sequence[RowStore]) -> ConcatenatedStore:
    """Read several sites at once, as rows as wide as all of them.

    Args:
        stores: One store a site, in the order of their columns.

    Returns:
        A store of as many rows; nothing is copied.

    Raises:
        ValueError: If their rows are not the same positions of the same examples, of one model and dataset; the first
            address that differs is named.
    """
    return ConcatenatedStore(stores)
