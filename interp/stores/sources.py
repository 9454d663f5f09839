"""Where the rows of several stores come from: compared before they are put together, joined afterwards."""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from interp.stores.base import RowStore
from interp.types import JSON

_OWN = ("dataset", "policy", "counts")


def check_row_stores(stores: Sequence[object]) -> None:
    """Refuse what cannot be read by row number.

    Raises:
        ValueError: If there is no store, or one of them cannot.
    """
    if not stores or not all(isinstance(store, RowStore) for store in stores):
        found = ", ".join(type(store).__name__ for store in stores) or "none"
        raise ValueError(f"stores are {found}, but rows are taken by number: give stores in memory or on disk.")


def check_same(what: str, first: tuple[str, RowStore], other: tuple[str, RowStore]) -> None:
    """Refuse rows of different models or datasets, where both stores know theirs.

    Args:
        what: `model` or `dataset`.
        first: A store, with the name that the message gives it.
        other: Another.

    Raises:
        ValueError: If they differ.
    """
    ours, theirs = (store.provenance.get(what) for _, store in (first, other))
    if ours is not None and theirs is not None and fingerprint_of(ours) != fingerprint_of(theirs):
        raise ValueError(
            f"{other[0]} was harvested with {what} {named(theirs)}, but {first[0]} with {named(ours)}: harvest both "
            f"with one {what}."
        )


def joined(parts: Sequence[JSON]) -> JSON:
    """Provenance of rows of several harvests, one after another.

    Whole numbers among the counts are added up; model and row policy are those of the first. `parts` keeps what each
    harvest says of its dataset, its policy and its counts, in order, also where parts were joined before.
    """
    flat: list[JSON] = []
    for part in parts:
        flat += part.get("parts") or [{name: part[name] for name in _OWN if name in part}]
    about = parts[0] | {"parts": flat}
    if all("counts" in part for part in flat):
        about["counts"] = functools.reduce(_added, [part["counts"] for part in flat])
    if all("dataset" in part for part in flat):
        datasets = [part["dataset"] for part in flat]
        chain = json.dumps([fingerprint_of(dataset) for dataset in datasets])
        names = dict.fromkeys(str(dataset["name"] if isinstance(dataset, dict) else dataset) for dataset in datasets)
        about["dataset"] = {"name": " + ".join(names), "fingerprint": hashlib.sha256(chain.encode()).hexdigest()}
    return about


def named(source: Any) -> str:
    """Name and the first digits of the hash of a model or dataset."""
    return f"{source.get('name')} ({str(fingerprint_of(source))[:12]})" if isinstance(source, dict) else repr(source)


def fingerprint_of(source: Any) -> Any:
    """What tells a model or dataset from others: its hash, or all that is known of it."""
    return source.get("fingerprint", source) if isinstance(source, dict) else source


def _added(a: JSON, b: JSON) -> JSON:
    """Sums of the whole numbers; a median, say, has none."""
    total: JSON = {}
    for name in a | b:
        x, y = a.get(name), b.get(name)
        if isinstance(x, dict) or isinstance(y, dict):
            total[name] = _added(x or {}, y or {})
        elif isinstance(x, int | None) and isinstance(y, int | None):
            total[name] = (x or 0) + (y or 0)
    return total
