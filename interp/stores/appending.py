"""A harvest added to another on the disk: its files get a second name there, and one write makes them count."""

from pathlib import Path

from interp import durability
from interp.harvest_writing import locked
from interp.stores.disk import DiskStore, open_stores
from interp.stores.manifest import MANIFEST, provenance_of, read_manifest, shard_files
from interp.stores.shards import opened_shards
from interp.stores.sources import joined
from interp.types import JSON, Site

# What may differ: how the dataset is read, how much of it, and how rows are batched and filed.
_FREE = ("text", "labels", "max_tokens", "chunk_examples", "batch_tokens", "rows_per_shard")


def append(path: Path | str, more: Path | str) -> dict[Site, DiskStore]:
    """Add the rows of another harvest to a folder, after its own; examples are numbered on.

    Every file of `more` is hashed, then linked into `path` (copied where the file system makes no links), under names
    that nothing lists yet; the new manifest, written last, makes them count. A kill or a full disk before that leaves
    the store as it was, and the same call does it again. Rows that are there already are not added again.

    Args:
        path: The folder of a finished harvest, which grows.
        more: The folder of another, which is left as it is and may be removed afterwards.

    Returns:
        A store for each site.

    Raises:
        ValueError: If either folder is not finished or damaged, or models, sites, dtype or row policies differ.
        OSError: If the disk refuses; `path` is as it was, unless the message says otherwise.
    """
    path, more = Path(path), Path(more)
    read_manifest(path)  # Where there is no store, this says so better than the lock.
    with locked(path):
        target, source = read_manifest(path), read_manifest(more)
        _check_fit(path, target, more, source)
        if not _held(path, target, more, source):
            shards = [*target["shards"], *_taken(path, target, more, source)]
            counts = {name: target[name] + source[name] for name in ("rows", "examples")}
            about = joined([provenance_of(target), provenance_of(source)])
            durability.write_json(path / MANIFEST, target | about | counts | {"shards": shards})
    return open_stores(path)


def _check_fit(path: Path, target: JSON, more: Path, source: JSON) -> None:
    ours, theirs = _facts(target), _facts(source)
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"{more} has {name} {theirs.get(name)!r}, but {path} has {ours.get(name)!r}: rows of one folder are of "
                "one kind; harvest again with the same model, sites and arguments."
            )


def _facts(manifest: JSON) -> JSON:
    """What must be equal, by name."""
    sites = {f"site {entry['site']} of": (entry["d_in"], entry["geometry"]) for entry in manifest["sites"]}
    policy = {f"policy.{name}": value for name, value in manifest["policy"].items() if name not in _FREE}
    return {"model": manifest["model"]["fingerprint"], "dtype": manifest["dtype"]} | sites | policy


def _held(path: Path, target: JSON, more: Path, source: JSON) -> bool:
    """Whether the rows are there already.

    Raises:
        ValueError: If only some are.
    """
    folders = _folders(source, target)
    known = [shard["files"] for shard in target["shards"]]
    held = [_renamed(shard["files"], folders) in known for shard in source["shards"]]
    if any(held) and not all(held):
        raise ValueError(
            f"shard {held.index(True)} of {more} is in {path} already, and others are not: appending would double "
            "rows; harvest only the examples that are new."
        )
    return all(held)


def _taken(path: Path, target: JSON, more: Path, source: JSON) -> list[JSON]:
    """Bring every file of the source into the folder; gives the manifest's entries for them."""
    folders = _folders(source, target)
    shards = []
    for number, files in enumerate(opened_shards(more, source, list(folders)), len(target["shards"])):
        names = shard_files(number, list(folders.values()))
        for name, file in _renamed(files, folders).items():
            file.verify()
            durability.take_file(file.path, path / names[name])
        shard = source["shards"][number - len(target["shards"])]
        offset = target["examples"] + shard.get("example_offset", 0)
        shards.append(shard | {"files": _renamed(shard["files"], folders), "example_offset": offset})
    for folder in (path, *(path / name for name in folders.values())):
        with durability.explained(folder):
            durability.sync_folder(folder)
    return shards


def _folders(source: JSON, target: JSON) -> dict[str, str]:
    """What the target calls the folder of each of the source's sites."""
    ours = {entry["site"]: entry["folder"] for entry in target["sites"]}
    return {entry["folder"]: ours[entry["site"]] for entry in source["sites"]}


def _renamed(files: JSON, folders: dict[str, str]) -> JSON:
    names = {f"values/{theirs}": f"values/{ours}" for theirs, ours in folders.items()}
    return {names.get(name, name): value for name, value in files.items()}
