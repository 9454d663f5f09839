"""The store a command reads."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.stores.disk import DiskStore
    from interp.types import Site


def of_site(path: Path, asked: str | None, own: "Site | None") -> "DiskStore":
    """The rows at the site asked for; else at the directions' own, where the folder holds it; else at the only one.

    Raises:
        ValueError: If the folder is no store, or holds several sites and none of these.
    """
    from interp.stores.disk import DiskStore, open_stores

    if asked is None and own in open_stores(path):
        return DiskStore(path, own)
    return DiskStore(path, asked)
