"""A store that lives on disk: fixed-size shards read by mmap, memory that does not grow with the rows.

Pages that were read stay mapped and count as resident, but belong to the files: the system takes them when it needs
memory for something else.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.stores.base import RowStore
from interp.stores.gathering import gathered
from interp.stores.items import ItemTable
from interp.stores.manifest import address_hash, chosen_site, provenance_of, read_manifest, site_fingerprint
from interp.stores.shards import opened_shards
from interp.types import Activations, Geometry, Item, Site


class DiskStore(RowStore):
    """The rows of one site of a harvested folder.

    Every file's size and header are checked here; its sha256 when it is first read, and by `verify`.

    Args:
        path: The folder a harvest made.
        site: Which site, where the folder holds several.
        dtype: What rows are given as; stored as the manifest says.
        check: Hash each file when it is first read (a minute for 100 GB); without it only `verify` does.

    Raises:
        ValueError: If the folder, a file of it or the site is not there, not finished or not what was written.
    """

    def __init__(
        self,
        path: Path | str,
        site: Site | str | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        check: bool = True,
    ) -> None:
        self.path, self.dtype, self._check = Path(path), dtype, check
        manifest = read_manifest(self.path)
        entry = chosen_site(manifest, site, self.path)
        self.site, self.d_in = Site.parse(entry["site"]), int(entry["d_in"])
        self.geometry = Geometry.from_json(entry["geometry"])
        self.fingerprint = site_fingerprint(manifest, entry["folder"])
        self.provenance = provenance_of(manifest) | {"site": str(self.site)}
        self.address_hash = address_hash(manifest)
        self._n_examples = int(manifest["examples"])
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]])
        self._shards = opened_shards(self.path, manifest, [entry["folder"]])
        self._offsets = [shard.get("example_offset", 0) for shard in manifest["shards"]]
        self._values = f"values/{entry['folder']}"
        self._hashed: set[Path] = set()
        self._mapped: dict[tuple[int, str], dict[str, Tensor]] = {}
        self.items: Sequence[Item] = ItemTable(
            [shard["examples"] for shard in manifest["shards"]], lambda number: self._map(number, "items")
        )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"DiskStore({str(self.path)!r}, {str(self.site)!r}: {len(self)} rows of {self.d_in})"

    def rows(self, numbers: Tensor) -> Activations:
        """The rows of the given numbers, in that order; only their pages are read.

        Raises:
            IndexError: If the store has no such row.
        """
        wanted, order = torch.sort(numbers.cpu().long(), stable=True)
        if len(wanted) and not 0 <= int(wanted[0]) <= int(wanted[-1]) < len(self):
            raise IndexError(f"rows asked for are {int(wanted[0])} to {int(wanted[-1])}, but there are {len(self)}.")
        runs = list(self._runs(wanted.numpy()))
        if not runs:
            return self._cut(0, 0, 0).to(dtype=self.dtype)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        inside = [wanted[low:high] + self._inside(shard, 0, 0)[0] for shard, low, high in runs]
        found = gathered([self._whole(shard) for shard, _, _ in runs], inside, back)
        offset = torch.cat([torch.full((high - low,), self._offsets[shard]) for shard, low, high in runs])[back]
        rows = Activations(found.values, found.example.long() + offset, found.position.long(), found.grads)
        # Widened last: the copies before it move half as many bytes.
        return rows.to(dtype=self.dtype)

    def span(self, start: int, stop: int) -> Activations:
        """A contiguous run of rows, copied."""
        numbers = np.arange(start, stop)
        if len(numbers) == 0 or not 0 <= start < stop <= len(self):
            return self.rows(torch.from_numpy(numbers))
        parts = [
            self._cut(shard, *self._inside(shard, start + low, start + high))
            for shard, low, high in self._runs(numbers)
        ]
        return Activations.concatenate(parts).to(dtype=self.dtype)

    def addresses(self, start: int, stop: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Example and position of a contiguous run of rows; no values are read."""
        parts = [
            self._address(shard, *self._inside(shard, start + low, start + high))
            for shard, low, high in self._runs(np.arange(start, stop))
        ]
        example, position = zip(*parts, strict=True)
        return torch.cat(example), torch.cat(position)

    def example_span(self, index: int) -> tuple[int, int]:
        """First row of an example, and the row after its last."""
        return int(self._starts[index]), int(self._starts[index + 1])

    def verify(self) -> None:
        """Hash every file of this site.

        Raises:
            ValueError: If one was changed since it was written.
        """
        for files in self._shards:
            for shard in files.values():
                shard.verify()
                self._hashed.add(shard.path)

    @functools.cached_property
    def _starts(self) -> "np.ndarray":
        """First row of each example, and the end: one integer an example."""
        counts = np.zeros(self._n_examples, dtype=np.int64)
        for number in range(len(self._shards)):
            example = self._read(number, "address")["example"].numpy() + self._offsets[number]
            low, high = int(example[0]), int(example[-1]) + 1
            counts[low:high] += np.bincount(example - low, minlength=high - low)
        return np.concatenate([[0], np.cumsum(counts)])

    def _runs(self, ascending: "np.ndarray") -> Iterator[tuple[int, int, int]]:
        """For each shard that is touched: its number, and which of the ascending rows are in it."""
        cuts = np.searchsorted(ascending, self._ends)
        for shard, (low, high) in enumerate(zip(np.concatenate([[0], cuts[:-1]]), cuts, strict=True)):
            if high > low:
                yield shard, int(low), int(high)

    def _inside(self, shard: int, start: int, stop: int) -> tuple[int, int]:
        first = int(self._ends[shard - 1]) if shard else 0
        return start - first, stop - first

    def _cut(self, shard: int, start: int, stop: int) -> Activations:
        """A run of rows of one shard; the vectors as views."""
        rows = self._whole(shard)[start:stop]
        return Activations(rows.values, *self._address(shard, start, stop), rows.grads)

    def _address(self, shard: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        example, position = (self._map(shard, "address")[name][start:stop].long() for name in ("example", "position"))
        # A shard that was appended counts its examples from where those before it end.
        return example + self._offsets[shard], position

    def _whole(self, shard: int) -> Activations:
        """All of one shard as it is stored."""
        values, address = self._map(shard, self._values), self._map(shard, "address")
        return Activations(values["values"], address["example"], address["position"], values.get("grads"))

    def _map(self, number: int, name: str) -> dict[str, Tensor]:
        """As `_read`, but mapped once: a new mapping finds its pages anew, which takes as long as copying them."""
        if (number, name) not in self._mapped:
            self._mapped[number, name] = self._read(number, name)
        return self._mapped[number, name]

    def _read(self, number: int, name: str) -> dict[str, Tensor]:
        shard = self._shards[number][name]
        if self._check and shard.path not in self._hashed:
            shard.verify()
            self._hashed.add(shard.path)
        return shard.read()


def open_stores(path: Path | str, *, dtype: torch.dtype = torch.float32, check: bool = True) -> dict[Site, DiskStore]:
    """Every site of a harvested folder, in the order they were asked for.

    Args:
        path: The folder a harvest made.
        dtype: What rows are given as.
        check: Hash each file when it is first read.

    Raises:
        ValueError: As `DiskStore` does.
    """
    names = [entry["site"] for entry in read_manifest(Path(path))["sites"]]
    return {Site.parse(name): DiskStore(path, name, dtype=dtype, check=check) for name in names}
