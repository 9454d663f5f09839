"""A folder that is harvested into: new, unfinished, finished, or somebody else's."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp.durability import TEMPORARY
from interp.harvest_dataset import Raw, Source, chained
from interp.harvest_policy import Tally
from interp.harvest_writing import read_progress, site_folders
from interp.stores.manifest import MANIFEST, read_manifest, shard_files
from interp.stores.shards import Shard
from interp.types import JSON, Site

_CHAIN = "fingerprint"


def finished(path: Path, request: JSON, source: Source) -> bool:
    """Whether a folder holds just what is asked for.

    Raises:
        ValueError: If it holds a harvest of something else.
    """
    if not (path / MANIFEST).is_file():
        return False
    manifest = read_manifest(path)
    sites = [entry["site"] for entry in manifest["sites"]]
    held = {"model": manifest["model"], "policy": manifest["policy"], "sites": sites}
    _refuse_other(path, held, request)
    _refuse_other_dataset(path, manifest["dataset"][_CHAIN], source.read(0), manifest["examples"])
    return True


def refuse_foreign(path: Path) -> None:
    """Keep what is no harvest from being replaced by one.

    Raises:
        ValueError: If the folder holds something else.
    """
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"path is {path}, which holds something that is no harvest: choose a new folder, or empty this one."
        )


def resumed(
    gathered: Path, request: JSON, machine: JSON, source: Source, *, exact: bool
) -> tuple[JSON | None, Tally, Iterator[Raw]]:
    """What an earlier run got done, the tally it got to, and the items that come next.

    Raises:
        ValueError: If the earlier run asked for something else, or ran under other conditions.
    """
    progress = read_progress(gathered)
    if progress is None:
        return None, Tally(), source.read(0)
    _refuse_other(gathered, progress["request"], request)
    if exact and progress["machine"] != machine:
        raise ValueError(
            f"{gathered} was begun with {_differences(progress['machine'], machine)}: the last bits of later rows "
            "would differ. Go on under the same conditions, or pass exact=False to accept that."
        )
    _refuse_damaged(gathered, progress)
    tally = Tally(**progress["tally"])
    if source.hint is not None and source.hint == progress["hint"]:
        return progress, tally, source.read(tally.items)
    items = source.read(0)
    _refuse_other_dataset(gathered, tally.chain, items, tally.items)
    return progress, tally, items


def _refuse_damaged(gathered: Path, progress: JSON) -> None:
    """Check length and header of every finished file."""
    folders = site_folders([Site.parse(name) for name in progress["request"]["sites"]])
    for number, shard in enumerate(progress["shards"]):
        for name, file in shard_files(number, folders).items():
            try:
                Shard(gathered / file, shard["files"][name])
            except ValueError as error:
                raise ValueError(f"{error} To start anew, pass overwrite=True.") from error


def clear(gathered: Path, *, all_of_it: bool) -> None:
    """Remove what a kill left half written, or everything."""
    for part in sorted(gathered.iterdir()) if all_of_it else sorted(gathered.rglob("*" + TEMPORARY)):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def _refuse_other(path: Path, held: JSON, request: JSON) -> None:
    found = _differences(held, request)
    if found:
        raise ValueError(
            f"{path} holds a harvest of another request ({found}): ask for that one, choose another folder, "
            "or pass overwrite=True to start anew."
        )


def _refuse_other_dataset(path: Path, chain: str, items: Iterator[Raw], count: int) -> None:
    if chained("", itertools.islice(items, count)) != chain:
        raise ValueError(
            f"{path} was harvested from another dataset: its first {count} items are not those given now. "
            "Give the same dataset in the same order, choose another folder, or pass overwrite=True to start anew."
        )


def _differences(held: Any, asked: Any, name: str = "") -> str:
    """Every value that differs, as `name was a, is b`."""
    if isinstance(held, dict) and isinstance(asked, dict):
        keys = sorted({*held, *asked})
        parts = (_differences(held.get(k), asked.get(k), f"{name}.{k}" if name else k) for k in keys)
        return ", ".join(part for part in parts if part)
    return "" if held == asked else f"{name} was {held!r}, is {asked!r}"
