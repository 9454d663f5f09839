"""A page that opens from `file://`: the features of one or more bundles, with no server and no network."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from analyses.dashboard.packing import PackedBundle, script
from analyses.dictionary.bundle import FeatureDictionary
from interp.durability import restore_folder, sync_folder, write_bytes, write_json, writing_folder

MARK = "page.json"
KIND = "unweave page"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def export_page(
    bundles: Sequence[Path | str] | Mapping[str, Path | str], out: Path | str, *, title: str | None = None
) -> Path:
    """Write a page that shows bundles, as a folder to open or to copy anywhere.

    Equal bundles and titles give equal bytes. A page already at `out` is replaced when the new one is complete.

    Args:
        bundles: Folders of bundles, by the name they shall have on the page; their folder names by default.
        out: Folder to write; open its `index.html`.
        title: Heading of the page; the names of the bundles by default.

    Returns:
        Path of `index.html`.

    Raises:
        ValueError: If there is no bundle, a name cannot be a folder, or `out` holds something that is no page.
    """
    paths = _named(bundles)
    out = Path(out).resolve()
    restore_folder(out)
    _check_replaceable(out, paths)
    heading = title if title is not None else ", ".join(paths)
    with writing_folder(out) as folder:
        _write_reader(folder, heading)
        sizes = {}
        for name, path in paths.items():
            packed = PackedBundle(name, FeatureDictionary(path))
            _write_bundle(packed, folder / "data" / name)
            sizes[name] = len(packed)
        listed = [{"name": name, "features": sizes[name]} for name in paths]
        write_bytes(folder / "data" / "page.js", script("unweave.receive", None, "page", {"bundles": listed}))
        write_json(folder / MARK, {"kind": KIND, "schema": 1, "title": heading, "bundles": listed})
        sync_folder(folder / "data")
    return out / "index.html"


def _named(bundles: Sequence[Path | str] | Mapping[str, Path | str]) -> dict[str, Path]:
    """Path of each bundle by its name on the page."""
    if isinstance(bundles, str | Path):
        raise ValueError(f"bundles is {str(bundles)!r}, but it takes a list of folders: write [{str(bundles)!r}].")
    pairs = bundles.items() if isinstance(bundles, Mapping) else [(Path(path).resolve().name, path) for path in bundles]
    paths: dict[str, Path] = {}
    for name, path in pairs:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"bundles has the name {name!r}, but a name is made of letters, digits, '.', '_' and '-': "
                "give a mapping from names to paths."
            )
        if name.lower() in {other.lower() for other in paths}:
            raise ValueError(f"bundles has {name!r} twice, but names differ: give a mapping from names to paths.")
        paths[name] = Path(path).resolve()
    if not paths:
        raise ValueError("bundles is empty, but a page shows at least one: give the folder of a bundle.")
    return paths


def _check_replaceable(out: Path, paths: Mapping[str, Path]) -> None:
    """Refuse to remove what is no page of ours, and a page that a bundle lies in."""
    if not out.exists():
        return
    inside = [path for path in paths.values() if path.is_relative_to(out)]
    if inside:
        raise ValueError(f"out is {out}, but the bundle {inside[0]} lies there: choose another folder for the page.")
    if not out.is_dir() or (any(out.iterdir()) and not _is_page(out)):
        raise ValueError(f"out is {out}, which exists and is no page made here: choose another folder, or remove it.")


def _is_page(folder: Path) -> bool:
    mark = folder / MARK
    try:
        return json.loads(mark.read_text(encoding="utf-8"))["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False  # Whatever is there, it is not a mark of ours.


def _write_reader(folder: Path, title: str) -> None:
    """The page itself; the same for every bundle but for its title."""
    static = files("analyses.dashboard") / "static"
    page = static.joinpath("reader.html").read_text(encoding="utf-8").replace("{{title}}", html.escape(title))
    write_bytes(folder / "index.html", page.encode("utf-8", "replace"))
    for name in ("reader.js", "reader.css", "icon.svg"):
        write_bytes(folder / name, static.joinpath(name).read_bytes())
    (folder / "data").mkdir()


def _write_bundle(packed: PackedBundle, folder: Path) -> None:
    folder.mkdir()
    write_bytes(folder / "table.js", packed.table())
    for number, chunk in enumerate(packed.chunks()):
        write_bytes(folder / f"chunk-{number:04d}.js", chunk)
    for sheet in packed.bundle.sheets.files:
        write_bytes(folder / sheet.name, sheet.read_bytes())
    sync_folder(folder)
