"""A bundle as scripts: plain JSON, columns in base64, nothing that a browser could read as markup."""

import base64
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyses.dashboard.packed_maps import PackedMaps
from analyses.dictionary import tables
from analyses.dictionary.bundle import FeatureDictionary
from interp.types import JSON

FEATURES_A_CHUNK = tables.FEATURES_A_GROUP
_FLOAT_COLUMNS = ("density", "max", "mean", "label_score")
_KNOWN = set(tables.FEATURES.names)


def script(call: str, *arguments: Any) -> bytes:
    """A script of one call. Pure ASCII, and no `<`, `>` or `&`: no text can end the script or open a comment."""
    texts = [json.dumps(value, separators=(",", ":"), allow_nan=False) for value in arguments]
    escaped = ",".join(texts).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f"{call}({escaped});\n".encode("ascii")


def packed(column: NDArray, kind: str) -> str:
    """The little-endian bytes of a column, in base64."""
    return base64.b64encode(_bytes(column, kind)).decode()


def packed_lists(lists: tables.Lists, kind: str) -> list[str]:
    """The same of each list of a column of lists."""
    data, ends = _bytes(lists.flat, kind), lists.offsets * np.dtype(kind).itemsize
    return [base64.b64encode(data[begin:end]).decode() for begin, end in itertools.pairwise(ends.tolist())]


def _bytes(column: NDArray, kind: str) -> bytes:
    return column.astype(np.dtype(kind).newbyteorder("<")).tobytes()


def plain(value: Any) -> Any:
    """A value as JSON knows it; numbers to six digits, None for what is not finite."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def text_of(value: Any) -> str:
    """A label that may be missing (None, or NaN from a table)."""
    return value if isinstance(value, str) else ""


class PackedBundle:
    """A bundle that is handed out script by script.

    Args:
        name: Name of the bundle on the page.
        bundle: The bundle.
    """

    def __init__(self, name: str, bundle: FeatureDictionary) -> None:
        self.name, self.bundle = name, bundle
        self.columns = bundle.features()
        self.more = [name for name in self.columns if name not in _KNOWN and self.columns[name].ndim == 1]
        self.values = {name: plain(self.columns[name]) for name in ("count", "min", "max", "quantiles", *self.more)}
        self.first_bin, self.last_bin = _bins(self.columns["histogram"])
        near = tables.read_columns(bundle.path / "neighbours.parquet")
        self.near = list(zip(near["kind"].tolist(), near["other"].tolist(), plain(near["value"]), strict=True))
        self.maps = PackedMaps(bundle) if bundle.has_maps else None
        self.near_starts = np.searchsorted(near["feature"], np.arange(len(self) + 1)).tolist()

    def __len__(self) -> int:
        return len(self.columns["feature"])

    def about(self) -> JSON:
        """What holds for the whole bundle."""
        manifest, geometry = self.bundle.manifest, self.bundle.manifest["geometry"]
        maps = {} if self.maps is None else {"maps": self.maps.about()}
        return maps | {
            "rows": manifest["counts"]["rows"],
            "firings": manifest["counts"]["firings"],
            "dead": manifest["counts"]["dead"],
            "site": manifest["directions"]["site"] or manifest["source"]["site"],
            "unit": "patch" if geometry["kind"] == "grid" else "token",
            "grid": geometry["grid"],
            "prefix": geometry["prefix"],
            "input": geometry["input_size"],
            "stride": geometry["stride"],
            "start": geometry.get("start", []),
            "edges": plain(self.bundle.edges()),
            "zero": manifest["heat"]["zero"],
            "shares": manifest["quantiles"]["shares"],
            "bins": manifest["identity"]["recipe"]["quantiles"][0],
        }

    def table(self) -> bytes:
        """The script with the columns of the list."""
        columns: JSON = {name: packed(self.columns[name], "f4") for name in _FLOAT_COLUMNS}
        columns |= {"dead": packed(self.columns["dead"], "u1"), "labels": [text_of(v) for v in self.columns["label"]]}
        return script("unweave.receive", self.name, "table", columns | {"about": self.about()})

    def chunks(self) -> Iterator[bytes]:
        """The scripts with everything else, 64 features each."""
        maps = self.bundle.map_groups()
        for number, group in enumerate(self.bundle.groups()):
            chunk = self._chunk(group)
            if self.maps is not None:
                self.maps.lay(next(maps), group, chunk["features"])
            yield script("unweave.receive", self.name, number, chunk)

    def _chunk(self, group: tables.Group) -> JSON:
        """Each different piece is stored once a chunk, and the examples have its number."""
        wide = len(group.pieces) > 1 << 16
        labels, boxes = self.bundle.item_labels, self.bundle.sheets.boxes
        shown = sorted(set(group.columns["item"]))
        items = {str(item): labels[item] for item in shown if item in labels}
        pictures = {str(item): boxes[item] for item in shown if item in boxes}
        scales, examples = group.columns["scale"], _examples(group, "u4" if wide else "u2")
        entries = [
            self._feature(feature, scales[begin] if end > begin else 0.0, examples[begin:end])
            for feature, (begin, end) in zip(group.features, itertools.pairwise(group.starts), strict=True)
        ]
        return {"pieces": group.pieces, "wide": wide, "items": items, "pictures": pictures, "features": entries}

    def _feature(self, feature: int, scale: float, examples: Sequence[JSON]) -> JSON:
        first, last = int(self.first_bin[feature]), int(self.last_bin[feature])
        return {
            "count": self.values["count"][feature],
            "low": self.values["min"][feature],
            "high": self.values["max"][feature],
            "quantiles": self.values["quantiles"][feature],
            "histogram": self.columns["histogram"][feature, first:last].tolist(),
            "first": first,
            "scale": scale,
            "examples": examples,
            "neighbours": self.near[self.near_starts[feature] : self.near_starts[feature + 1]],
            "more": [[name, self.values[name][feature]] for name in self.more],
        }


def _examples(group: tables.Group, kind: str) -> list[JSON]:
    """The examples of a group, with the numbers of their pieces as that kind."""
    columns: dict[str, list[Any]] = {
        name: group.columns[name] for name in ("bin", "quantile", "item", "position", "activation", "start")
    }
    columns["activation"] = plain(columns["activation"])
    columns |= {"window": packed_lists(group.windows, "u1"), "tokens": packed_lists(group.tokens, kind)}
    return [dict(zip(columns, example, strict=True)) for example in zip(*columns.values(), strict=True)]


def _bins(histogram: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first bin of each feature that holds something, and the bin after the last; 0 where none does."""
    holds = histogram > 0
    after = histogram.shape[1] - np.argmax(holds[:, ::-1], axis=1)
    return np.argmax(holds, axis=1), np.where(holds.any(axis=1), after, 0)
