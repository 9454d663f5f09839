"""Look at a store before training on it: norms, sinks, outlier dimensions, effective rank, copies.

unweave diagnose runs/store --out runs/store-diagnosis.png runs/store-diagnosis.json
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from analyses.commands import stores

if TYPE_CHECKING:
    from interp.diagnosis import Diagnosis

_FIGURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Arguments:
    """What to look at.

    Args:
        store: The folder a harvest made.
        site: Site of the store, where it holds several.
        rows: Read a shuffled sample of this many rows; all by default.
        out: Files for the figure (.png, .svg or .pdf) and for the numbers (.json).
        quiet: No progress bar.
    """

    store: tyro.conf.Positional[Path]
    site: str | None = None
    rows: int | None = None
    out: tuple[Path, ...] = ()
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Print what was found, and write what was asked for."""
    from interp.diagnosis import diagnose

    strange = [path for path in arguments.out if path.suffix not in (*_FIGURES, ".json")]
    if strange:  # Said before the store is read.
        raise ValueError(f"--out has {strange[0]}, but it is written as {', '.join(_FIGURES)} or .json: name it so.")
    store = stores.of_site(arguments.store, arguments.site, None)
    found = diagnose(store, rows=arguments.rows, progress=not arguments.quiet)
    print(found)
    for path in arguments.out:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(found, path)
        print(path)


def _write(found: "Diagnosis", path: Path) -> None:
    from interp.durability import write_bytes, write_json

    if path.suffix == ".json":
        write_json(path, found.to_json())
        return
    from analyses.plots.diagnosis import diagnosis

    image = io.BytesIO()
    diagnosis(found).savefig(image, format=path.suffix[1:], dpi=150)
    write_bytes(path, image.getvalue())
