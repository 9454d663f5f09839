"""Two sites for one lesson: the rows of the first, and at the second what they should predict (transcoders)."""

from collections.abc import Sequence

from interp.stores.aligned import AlignedStore
from interp.stores.base import RowStore
from interp.types import Activations


class PairedStore(AlignedStore):
    """Values (and gradients) of one store, with the values of another as targets. Made by `paired`.

    `site` and `d_in` are those of the values, `target_site` and `d_out` those of the targets.
    """

    def __init__(self, store_in: RowStore, store_out: RowStore) -> None:
        super().__init__({"store_in": store_in, "store_out": store_out})
        self.site, self.d_in = store_in.site, store_in.d_in
        self.target_site, self.d_out = store_out.site, store_out.d_in
        target = {"site": str(store_out.site), "d_out": store_out.d_in}
        self.provenance = {**store_in.provenance, "target": target}

    def __repr__(self) -> str:
        return f"PairedStore({str(self.site)!r} to {str(self.target_site)!r}: {len(self)} rows)"

    def _joined(self, parts: Sequence[Activations]) -> Activations:
        x, target = parts
        return Activations(x.values, x.example, x.position, x.grads, target.values)


def paired(store_in: RowStore, store_out: RowStore) -> PairedStore:
    """Read two sites at once: `values` from one, `target` from the other.

    Args:
        store_in: Where rows are read.
        store_out: What each row should predict; of any width.

    Returns:
        A store of as many rows; nothing is copied.

    Raises:
        ValueError: If their rows are not the same positions of the same examples, of one model and dataset; the first
            address that differs is named.
    """
    return PairedStore(store_in, store_out)
