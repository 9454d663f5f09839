"""A store that lives in memory."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.finite import rows_not_finite
from interp.stores.base import RowStore
from interp.stores.gathering import taken
from interp.types import JSON, Activations, Geometry, Item, Site


class MemoryStore(RowStore):
    """Rows held as tensors.

    Args:
        activations: The rows; sorted by example, as a harvest gives them.
        site: Where they were read.
        geometry: How positions are laid out.
        items: What each example was made from; by default one item without content for each example.
        provenance: Where the rows come from, in plain JSON values.

    Raises:
        ValueError: If the rows are not finite, or not sorted by example.
    """

    def __init__(
        self,
        activations: Activations,
        *,
        site: Site | str = "values",
        geometry: Geometry | None = None,
        items: Sequence[Item] | None = None,
        provenance: JSON | None = None,
    ) -> None:
        bad = rows_not_finite(activations.values)
        if len(bad):
            raise ValueError(
                f"values has {len(bad)} rows with NaN or infinity (the first is row {int(bad[0])}): "
                "drop them, or look for the example that made them."
            )
        if (activations.example.diff() < 0).any():
            raise ValueError("example must not descend from row to row: sort the rows by example.")
        self._rows = activations
        self.site = Site.parse(site)
        self.d_in = activations.values.shape[1]
        self.geometry = geometry or Geometry()
        n_examples = int(activations.example[-1]) + 1 if len(activations) else 0
        self.items = items if items is not None else [Item()] * n_examples
        self._starts = torch.searchsorted(activations.example.contiguous(), torch.arange(len(self.items) + 1))
        self.provenance = dict(provenance or {})

    @classmethod
    def from_values(cls, values: Float[Tensor, "n d_in"], **about: object) -> "MemoryStore":
        """Rows without addresses: each row is an example of its own."""
        n = len(values)
        rows = Activations(values, torch.arange(n), torch.zeros(n, dtype=torch.long))
        return cls(rows, **about)  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of the values and addresses, made when first asked for."""
        if not hasattr(self, "_fingerprint"):
            digest = hashlib.sha256(str((self.site, self._rows.values.dtype, tuple(self._rows.values.shape))).encode())
            for part in (self._rows.values, self._rows.example, self._rows.position, self._rows.grads):
                if part is not None:
                    digest.update(part.contiguous().view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, numbers: Tensor) -> Activations:
        """The rows of the given numbers, in that order."""
        return taken(self._rows, numbers)

    def span(self, start: int, stop: int) -> Activations:
        """A contiguous run of rows, as views."""
        return self._rows[start:stop]

    def example_span(self, index: int) -> tuple[int, int]:
        """First row of an example, and the row after its last."""
        return int(self._starts[index]), int(self._starts[index + 1])


def labelled_items(labels: Mapping[str, Sequence[str]]) -> list[Item]:
    """Items from columns of labels."""
    return [Item(labels=dict(zip(labels, row, strict=True))) for row in zip(*labels.values(), strict=True)]
