"""The manifest of a harvested folder: what the shards hold and where it came from, checked when read."""

import hashlib
import json
from pathlib import Path

import torch

from interp.durability import TEMPORARY
from interp.types import JSON, Site

VERSION = 1
KIND = "unweave.activations"
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
# What rows may be stored as; float64 is for tests of other things.
VALUE_DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64")}
_FIELDS = ("model", "dataset", "policy", "counts", "sites", "dtype", "rows", "examples", "shards")


def shard_files(number: int, folders: list[str]) -> dict[str, str]:
    """Names of the files of one shard: addresses, items, and the values of each site by its folder."""
    files = {name: f"{name}-{number:05d}.safetensors" for name in ("address", "items")}
    return files | {f"values/{folder}": f"{folder}/values-{number:05d}.safetensors" for folder in folders}


def unfinished(path: Path) -> Path:
    """Where a harvest gathers its shards until it is complete."""
    return path.with_name(path.name + TEMPORARY)


def read_manifest(path: Path) -> JSON:
    """Read and check the manifest of a folder.

    Raises:
        ValueError: If the folder holds no finished harvest, or one of another format.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ValueError(_missing(path))
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): it was cut or edited; copy it again.") from error
    found = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
    if found != KIND:
        raise ValueError(f"{file} is of kind {found!r}, but a store's is {KIND!r}: give the folder of a harvest.")
    if manifest.get("version") != VERSION:
        raise ValueError(
            f"{file} is of format version {manifest.get('version')!r}, but this unweave reads {VERSION}: "
            "use the version that wrote it, or harvest again."
        )
    lacking = [name for name in _FIELDS if name not in manifest]
    folders = [site["folder"] for site in manifest.get("sites", ())]
    # A manifest may come from anywhere: it must not lead out of its folder.
    stray = [folder for folder in folders if folder != Path(folder).name or folder in ("", ".", "..")]
    if lacking or stray or not folders:
        raise ValueError(f"{file} is damaged (missing {lacking}, folders {folders}): copy it again, or harvest again.")
    return manifest


def _missing(path: Path) -> str:
    if unfinished(path).is_dir():
        return f"{path} is not finished ({unfinished(path).name} holds a part of it): run the same command again."
    if (path / PROGRESS).is_file():
        return f"{path} holds an unfinished harvest: run the command that made it again, with the path it was given."
    if not path.exists():
        return f"path is {path}, but there is no such folder: check the path, or harvest into it."
    return f"path is {path}, but it has no {MANIFEST}: give the folder that a harvest made."


def chosen_site(manifest: JSON, site: Site | str | None, path: Path) -> JSON:
    """The manifest's entry of one site.

    Raises:
        ValueError: If there is no such site, or several and none was named.
    """
    names = [entry["site"] for entry in manifest["sites"]]
    if site is None and len(names) == 1:
        return manifest["sites"][0]
    if site is None or str(Site.parse(site)) not in names:
        given = "not given" if site is None else f"{str(site)!r}"
        raise ValueError(f"site is {given}, but {path} holds {', '.join(names)}: give one of them.")
    return manifest["sites"][names.index(str(Site.parse(site)))]


def provenance_of(manifest: JSON) -> JSON:
    """Where the rows come from and what was left out; `parts` where harvests were appended to each other."""
    names = ("model", "dataset", "policy", "counts", "dtype", "parts")
    return {name: manifest[name] for name in names if name in manifest}


def address_hash(manifest: JSON) -> str:
    """Hash of the addresses as they lie on the disk, the same for all sites."""
    shards = [
        (shard["rows"], shard.get("example_offset", 0), shard["files"]["address"]["sha256"])
        for shard in manifest["shards"]
    ]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()


def site_fingerprint(manifest: JSON, folder: str) -> str:
    """Hash of everything the manifest says of one site's rows."""
    shared = {name: value for name, value in manifest.items() if name not in ("sites", "shards")}
    keep = shard_files(0, [folder]).keys()
    shared["site"] = next(entry for entry in manifest["sites"] if entry["folder"] == folder)
    shared["shards"] = [
        shard | {"files": {name: record for name, record in shard["files"].items() if name in keep}}
        for shard in manifest["shards"]
    ]
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()
