"""Say what a harvested folder holds (info), check its files (verify), add another harvest to it (append).

unweave store info runs/store --statistics

unweave store verify runs/store

unweave store append runs/store runs/more
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from interp.types import JSON

GO_ON = "what is there is as it was; run the same command again"
_READ = ("items", "tokens", "rows", "at_max_length", "medians")


@dataclass(frozen=True)
class Arguments:
    """What to do, with which folder.

    Args:
        what: info, verify or append.
        path: The folder a harvest made.
        source: With append: the folder whose rows are added to PATH; it is left as it is.
        statistics: With info: also read all rows, and describe those of each site.
    """

    what: tyro.conf.Positional[Literal["info", "verify", "append"]]
    path: tyro.conf.Positional[Path]
    source: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="SOURCE")]] = None
    statistics: bool = False


def run(arguments: Arguments) -> None:
    """Do what is asked.

    Raises:
        ValueError: If the folder is not finished, not a store or damaged.
    """
    _check(arguments)
    unfinished = _unfinished(arguments.path)
    if arguments.what == "info":
        print(unfinished or _info(arguments.path, statistics=arguments.statistics))
    elif unfinished:
        raise ValueError(unfinished)
    elif arguments.what == "verify":
        print(_verified(arguments.path))
    else:
        assert arguments.source is not None
        print(_append(arguments.path, arguments.source))


def _check(arguments: Arguments) -> None:
    if (arguments.what == "append") != (arguments.source is not None):
        raise ValueError(
            f"{arguments.what} takes {'two folders' if arguments.what == 'append' else 'one folder'}: "
            "unweave store info PATH, verify PATH, or append PATH SOURCE."
        )
    if arguments.statistics and arguments.what != "info":
        raise ValueError(f"--statistics is of info, not of {arguments.what}: leave it out.")


def _unfinished(path: Path) -> str | None:
    """How far a harvest is and how to go on, where the folder is not there yet."""
    from interp.durability import TEMPORARY
    from interp.harvest_writing import read_progress
    from interp.stores.manifest import MANIFEST, unfinished

    path = path.resolve()
    path = path.with_name(path.name.removesuffix(TEMPORARY))
    if (path / MANIFEST).exists() or not unfinished(path).is_dir():
        return None
    go_on = "run the harvest that made it again, with the same arguments, and it goes on from there."
    if (unfinished(path) / MANIFEST).exists():
        return f"{path} is complete but has not got its name ({unfinished(path).name} is it): {go_on}"
    progress = read_progress(unfinished(path)) or {"shards": [], "tally": {"items": 0}}
    rows = sum(shard["rows"] for shard in progress["shards"])
    return (
        f"{path} is not finished: {len(progress['shards'])} shards with {rows:,} rows are on the disk, of the first "
        f"{progress['tally']['items']:,} items; {go_on}"
    )


def _info(path: Path, *, statistics: bool) -> str:
    from interp.stores.disk import open_stores
    from interp.stores.manifest import read_manifest
    from interp.stores.sources import named
    from interp.stores.statistics import statistics as found

    manifest, stores = read_manifest(path), open_stores(path)
    size = sum(file["bytes"] for shard in manifest["shards"] for file in shard["files"].values())
    facts = [
        ("rows", f"{manifest['rows']:,} of {manifest['examples']:,} examples, as {manifest['dtype']}"),
        ("files", f"{len(manifest['shards'])} shards, {size / 1e6:,.1f} MB"),
        *(("site", f"{site} of width {s.d_in}, {s.geometry.kind}, {s.fingerprint[:12]}") for site, s in stores.items()),
        ("model", named(manifest["model"])),
    ]
    for part in manifest.get("parts", [manifest]):
        facts += _part(part)
    lines = [f"{name:8}  {text}" for name, text in facts]
    lines += [f"\n{site}\n{found(store)}" for site, store in stores.items()] if statistics else []
    return "\n".join(lines)


def _part(part: "JSON") -> "list[tuple[str, str]]":
    """What one harvest read, how, and what it left out."""
    from interp.stores.sources import named

    counts = part["counts"]
    left_out = {name: counts[name] for name in counts if name not in _READ}
    read = f"{counts['items']:,} items, {counts['at_max_length']:,} of them at max_length, {counts['tokens']:,} tokens"
    return [
        ("dataset", f"{named(part['dataset'])}: {read}"),
        ("policy", _listed(part["policy"])),
        ("left out", _listed(left_out) or "nothing"),
    ]


def _listed(values: "JSON") -> str:
    """Names and values, those that say nothing left out."""
    told = {name: value for name, value in values.items() if value not in (None, 0, [], {}, "")}
    return ", ".join(f"{name} {_plain(value)}" for name, value in told.items())


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {part}" for name, part in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _verified(path: Path) -> str:
    """Hash every file, those of all sites."""
    from interp.progress import Progress
    from interp.stores.manifest import read_manifest
    from interp.stores.shards import opened_shards

    manifest = read_manifest(path)
    shards = opened_shards(path, manifest, [site["folder"] for site in manifest["sites"]])
    files = [file for shard in shards for file in shard.values()]
    with Progress("verify", total=len(files), unit="file") as bar:
        for file in files:
            file.verify()
            bar.update(1)
    return f"{path}: all {len(files)} files are as they were written"


def _append(path: Path, source: Path) -> str:
    from interp.stores.appending import append
    from interp.stores.manifest import read_manifest

    before = read_manifest(path)["rows"]
    rows = len(next(iter(append(path, source).values())))
    return f"{path}: {rows:,} rows, {rows - before:,} of them new" + ("" if rows > before else " (it had these)")
