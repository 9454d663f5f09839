"""A bundle as scripts: plain JSON, columns in base64, nothing that a browser could read as markup."""

import base64
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    return base64.b64encode(np.ascontiguousarray(column, dtype=np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def plain(value: Any) -> Any:
    """A value as JSON knows it; numbers to six digits, None for what is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, np.ndarray | list | tuple):
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
        self.first_bin = _first_bins(self.columns["histogram"])
        items = bundle.items()
        self.items = dict(zip(items["id"].tolist(), items["labels"], strict=True))
        self.near = tables.read_columns(bundle.path / "neighbours.parquet")

    def __len__(self) -> int:
        return len(self.columns["feature"])

    def about(self) -> JSON:
        """What holds for the whole bundle."""
        manifest, geometry = self.bundle.manifest, self.bundle.manifest["geometry"]
        return {
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
        for number, (features, examples) in enumerate(self.bundle.groups()):
            yield script("unweave.receive", self.name, number, self._chunk(features, examples))

    def _chunk(self, features: range, examples: list[list[JSON]]) -> JSON:
        shown = sorted({example["item"] for rows in examples for example in rows})
        pieces: dict[str, int] = {}
        for example in (example for rows in examples for example in rows):
            example["numbers"] = [pieces.setdefault(piece, len(pieces)) for piece in example["tokens"] or ()]
        wide = len(pieces) > 1 << 16
        items = {str(item): json.loads(self.items[item]) for item in shown if item in self.items}
        boxes = self.bundle.sheets.boxes
        pictures = {str(item): boxes[item] for item in shown if item in boxes}
        entries = [self._feature(f, rows, "u4" if wide else "u2") for f, rows in zip(features, examples, strict=True)]
        return {"pieces": list(pieces), "wide": wide, "items": items, "pictures": pictures, "features": entries}

    def _feature(self, feature: int, examples: Sequence[JSON], kind: str) -> JSON:
        counts = np.trim_zeros(self.columns["histogram"][feature]).tolist()
        return {
            "count": plain(self.columns["count"][feature]),
            "low": plain(self.columns["min"][feature]),
            "high": plain(self.columns["max"][feature]),
            "quantiles": plain(self.columns["quantiles"][feature]),
            "histogram": counts,
            "first": int(self.first_bin[feature]),
            "scale": float(examples[0]["scale"]) if examples else 0.0,
            "examples": [_example(example, kind) for example in examples],
            "neighbours": self._neighbours(feature),
            "more": [[name, plain(self.columns[name][feature])] for name in self.more],
        }

    def _neighbours(self, feature: int) -> list[list[Any]]:
        first, last = np.searchsorted(self.near["feature"], [feature, feature + 1])
        columns = (self.near[name][first:last] for name in ("kind", "other", "value"))
        return [[str(kind), int(other), plain(value)] for kind, other, value in zip(*columns, strict=True)]


def _example(example: JSON, kind: str) -> JSON:
    """One example; each different piece is stored once a chunk, under a number of that kind."""
    return {
        "bin": example["bin"],
        "quantile": example["quantile"],
        "item": example["item"],
        "position": example["position"],
        "activation": plain(example["activation"]),
        "start": example["start"],
        "window": base64.b64encode(bytes(example["window"])).decode(),
        "tokens": packed(np.array(example["numbers"]), kind),
    }


def _first_bins(histogram: NDArray) -> NDArray[np.int64]:
    """The first bin of each feature that holds something; 0 where none does."""
    return np.argmax(histogram > 0, axis=1)
