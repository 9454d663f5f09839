"""A harvest at work: chunk after chunk into memory, or into a folder that takes its name when it is complete."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from interp.durability import make_folder
from interp.harvest_dataset import Raw, Source, chained
from interp.harvest_policy import Policy, Tally, environment
from interp.harvest_resuming import clear, finished, refuse_foreign, resumed
from interp.harvest_rows import Block, RowReader
from interp.harvest_writing import ShardWriter, locked, publish, remove_older
from interp.models.base import Model
from interp.progress import Progress
from interp.stores.base import RowStore
from interp.stores.disk import open_stores
from interp.stores.manifest import unfinished
from interp.stores.memory import MemoryStore
from interp.types import JSON, Activations, Item, Site

Stores = dict[Site, RowStore]


class Harvest:
    """One harvest, ready to run into memory or into a folder.

    Args:
        model: What is read.
        sites: Where.
        policy: What is kept.
        source: The dataset.
        reader: Turns its items into rows.
        shown: Whether a bar may be shown.
    """

    def __init__(
        self, model: Model, sites: list[Site], policy: Policy, source: Source, reader: RowReader, *, shown: bool
    ) -> None:
        self._model, self._sites, self._policy = model, sites, policy
        self._source, self._reader, self._shown = source, reader, shown

    def to_memory(self) -> Stores:
        """Run and keep the rows in memory, as the same harvest on disk would give them."""
        tally, blocks, items = Tally(), [], list[Item]()
        for block, _ in self._blocks(self._source.read(0), tally):
            items += block.items
            blocks += [block] if len(block) else []
        self._refuse_empty(tally)
        return {
            site: MemoryStore(
                Activations.concatenate([block.rows[site] for block in blocks]).to(dtype=torch.float32),
                site=site,
                geometry=self._model.geometry(site),
                items=items,
                provenance=self._manifest(tally) | {"site": str(site)},
            )
            for site in self._sites
        }

    def to_disk(self, path: Path, *, overwrite: bool, exact: bool) -> Stores:
        """Run into a folder, from where an earlier run stopped.

        Raises:
            ValueError: If the folder holds something else.
            OSError: If the disk refuses.
        """
        fingerprints = {"name": self._model.name, "fingerprint": self._model.fingerprint}
        request: JSON = {
            "model": fingerprints,
            "policy": self._policy.to_json(),
            "sites": [str(s) for s in self._sites],
        }
        refuse_foreign(path)
        if not overwrite and finished(path, request, self._source):
            remove_older(path)
            return dict(open_stores(path))
        gathered = unfinished(path)
        make_folder(gathered)
        with locked(gathered):
            try:
                done = finished(gathered, request, self._source)
                about: JSON = {"request": request, "machine": environment(self._model), "hint": self._source.hint}
                state, tally, raws = resumed(gathered, request, about["machine"], self._source, exact=exact)
            except ValueError:
                if not overwrite:
                    raise
                done, state, tally, raws = False, None, Tally(), self._source.read(0)
            if not done:
                clear(gathered, all_of_it=state is None)
                writer = ShardWriter(gathered, self._sites, self._policy.rows_per_shard, about)
                if state is not None:
                    writer.resume(state)
                self._write(writer, raws, tally)
            publish(gathered, path)
        return dict(open_stores(path))

    def _write(self, writer: ShardWriter, raws: Iterator[Raw], tally: Tally) -> None:
        for block, before in self._blocks(raws, tally):
            writer.add(block, before)
        self._refuse_empty(tally)
        writer.finish(self._manifest(tally), {site: self._model.geometry(site).to_json() for site in self._sites})

    def _blocks(self, raws: Iterator[Raw], tally: Tally) -> Iterator[tuple[Block, Tally]]:
        """Chunk by chunk, each with the tally as it was before it."""
        limit = self._policy.max_tokens or float("inf")
        with Progress("harvest", total=self._source.length, unit="item", shown=self._shown) as bar:
            bar.update(tally.items)
            while tally.tokens < limit:
                before, chunk = copy.deepcopy(tally), list(itertools.islice(raws, self._policy.chunk_examples))
                if not chunk:
                    return
                ready = self._reader.prepare(chunk)
                reached = itertools.accumulate((one.length for one in ready), initial=tally.tokens)
                count = sum(total < limit for total in itertools.islice(reached, len(ready)))
                tally.chain = chained(tally.chain, chunk[:count])
                yield self._reader.read(ready[:count], tally), before
                bar.update(count)

    def _refuse_empty(self, tally: Tally) -> None:
        if tally.rows:
            return
        if not tally.items:
            raise ValueError("dataset has no items: give one that is not empty.")
        if len(tally.skipped) == tally.items:
            raise ValueError(
                f"dataset gave no rows: none of {tally.items} items could be read, the first because of: "
                f"{tally.skipped[0]['reason']}. Check the image column."
            )
        raise ValueError(
            f"dataset gave no rows: of {tally.items} items {tally.empty} were empty, and exclude, first and "
            "max_norm_ratio left out all positions of the others: check the text column and these arguments."
        )

    def _manifest(self, tally: Tally) -> JSON:
        """What rows were made from and what was left out: equal for equal arguments, wherever it runs."""
        counts = tally.to_json()
        fingerprint = counts.pop("chain")
        return {
            "model": {"name": self._model.name, "fingerprint": self._model.fingerprint},
            "dataset": {"name": self._source.name, "fingerprint": fingerprint},
            "policy": self._policy.to_json(),
            "counts": counts,
            "dtype": self._policy.dtype,
        }
