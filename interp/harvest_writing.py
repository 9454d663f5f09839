"""Rows to fixed-size shards, with a record of progress after each: a kill costs at most what no shard holds yet."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from interp import durability
from interp.harvest_policy import Tally
from interp.harvest_rows import Block
from interp.stores.items import pack_items
from interp.stores.manifest import KIND, MANIFEST, PROGRESS, VERSION, shard_files
from interp.stores.shards import write_shard
from interp.types import JSON, Activations, Item, Site

_SHARD_BYTES = 64 * 2**20
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)


class ShardWriter:
    """Gathers blocks and writes them as shards of one size.

    An example's item goes with the shard that holds the row where it begins, or the one just before: what a kill
    leaves unwritten then belongs to one chunk only, and a resume starts at that chunk.

    Args:
        folder: Where shards are gathered.
        sites: The sites.
        rows_per_shard: Rows of every shard but the last; None for about 64 MB of the widest site.
        about: What `progress.json` records of the request, compared on a resume.
    """

    def __init__(self, folder: Path, sites: Sequence[Site], rows_per_shard: int | None, about: JSON) -> None:
        self._folder, self._sites, self._about = folder, sites, about
        self.rows_per_shard = rows_per_shard
        self.shards: list[JSON] = []
        self.d_in: dict[str, int] = {}
        self._blocks: list[dict[Site, Activations]] = []  # what no shard holds yet
        self._items: list[Item] = []
        self._begins: list[int] = []  # first row of each pending item, numbered over the whole harvest
        self._folders = dict(zip(sites, site_folders(sites), strict=True))

    @property
    def rows_stored(self) -> int:
        """Rows in finished shards."""
        return sum(shard["rows"] for shard in self.shards)

    @property
    def items_stored(self) -> int:
        """Items in finished shards."""
        return sum(shard["examples"] for shard in self.shards)

    def resume(self, progress: JSON) -> None:
        """Go on after the shards of an earlier run."""
        self.shards, self.rows_per_shard, self.d_in = progress["shards"], progress["rows_per_shard"], progress["d_in"]

    def add(self, block: Block, before: Tally) -> None:
        """Take the rows of a chunk, less what finished shards hold already.

        Args:
            block: Rows and items of the chunk.
            before: The tally as it was when the chunk began.
        """
        begins = _begins(block, before)
        known = max(0, self.items_stored - before.items)
        self._items += block.items[known:]
        self._begins += begins[known:]
        if len(block):
            done = max(0, self.rows_stored - before.rows)
            self._blocks.append({site: rows[done:] for site, rows in block.rows.items()})
            self.d_in = {str(site): rows.values.shape[1] for site, rows in block.rows.items()}
            self.rows_per_shard = self.rows_per_shard or _rows_for(block.rows)
        while self.rows_per_shard and self._pending > self.rows_per_shard:
            self._write(self.rows_per_shard, before)

    def finish(self, manifest: JSON, geometry: dict[Site, JSON]) -> None:
        """Write the last shard and the manifest."""
        if self._pending:
            self._write(self._pending, None)
        sites = [
            {"site": str(s), "d_in": self.d_in[str(s)], "geometry": geometry[s], "folder": self._folders[s]}
            for s in self._sites
        ]
        counts = {"rows": self.rows_stored, "examples": self.items_stored}
        facts = {"kind": KIND, "version": VERSION, "sites": sites, "shards": self.shards}
        durability.write_json(self._folder / MANIFEST, manifest | facts | counts)

    @property
    def _pending(self) -> int:
        return sum(len(block[self._sites[0]]) for block in self._blocks)

    def _write(self, count: int, before: Tally | None) -> None:
        """One shard; without a tally it is the last."""
        number, end = len(self.shards), self.rows_stored + count
        n_items = sum(begin <= end for begin in self._begins) if before else len(self._items)
        files = shard_files(number, list(self._folders.values()))
        pending = {site: Activations.concatenate([block[site] for block in self._blocks]) for site in self._sites}
        first = pending[self._sites[0]][:count]
        contents = {
            "address": {"example": first.example.int(), "position": first.position.int()},
            "items": pack_items(self._items[:n_items]),
        }
        for site, folder in self._folders.items():
            rows = pending[site][:count]
            grads = {} if rows.grads is None else {"grads": rows.grads}
            contents[f"values/{folder}"] = {"values": rows.values} | grads
        records = {}
        for name, tensors in contents.items():
            durability.make_folder((self._folder / files[name]).parent)
            records[name] = write_shard(self._folder / files[name], tensors)
        self.shards = [*self.shards, {"rows": count, "examples": n_items, "files": records}]
        self._blocks = [{site: rows[count:] for site, rows in pending.items()}]
        self._items, self._begins = self._items[n_items:], self._begins[n_items:]
        if before is not None:
            state = {"shards": self.shards, "rows_per_shard": self.rows_per_shard, "d_in": self.d_in}
            durability.write_json(self._folder / PROGRESS, self._about | state | {"tally": before.to_json()})


def read_progress(folder: Path) -> JSON | None:
    """What an earlier run got done, if it got anything done."""
    file = folder / PROGRESS
    return json.loads(file.read_bytes()) if file.is_file() else None


def publish(gathered: Path, path: Path) -> None:
    """Give a complete harvest its name, in place of an older one if there is one."""
    (gathered / PROGRESS).unlink(missing_ok=True)
    if path.exists() and any(path.iterdir()):
        remove_older(path)
        durability.move_folder(path, _older(path))
    durability.move_folder(gathered, path)
    remove_older(path)


def remove_older(path: Path) -> None:
    """Remove the harvest that another took the place of."""
    if (_older(path) / MANIFEST).is_file():
        shutil.rmtree(_older(path))


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".replaced")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from gathering into the same folder.

    Raises:
        ValueError: If another process is at work there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"another process is harvesting into {folder}: wait for it, or choose another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # Some network file systems have no locks: one process at a time, then.
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)


def site_folders(sites: Sequence[Site]) -> list[str]:
    """A folder name for each site, readable and without accidents."""
    names: list[str] = []
    for site in sites:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", str(site)).lstrip(".") or "site"
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def _begins(block: Block, before: Tally) -> list[int]:
    if not len(block):
        return [before.rows] * len(block.items)
    example = next(iter(block.rows.values())).example
    numbers = torch.arange(before.items, before.items + len(block.items))
    return (torch.searchsorted(example.contiguous(), numbers) + before.rows).tolist()


def _rows_for(rows: dict[Site, Activations]) -> int:
    widest = max(
        part.values.shape[1] * part.values.element_size() * (1 if part.grads is None else 2) for part in rows.values()
    )
    return max(_SHARD_BYTES // widest // 1024, 1) * 1024
