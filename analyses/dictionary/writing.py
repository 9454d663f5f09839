"""The folder of a bundle, written whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save

from analyses.dictionary import tables
from analyses.dictionary.accumulating import Accumulators
from analyses.dictionary.gathering import Partners, Windows, spread
from analyses.dictionary.histograms import bin_edges, occupied, quantiles_of
from analyses.dictionary.manifests import SHARES, manifest_of
from analyses.dictionary.neighbours import KINDS, all_neighbours, plane_of
from analyses.dictionary.selecting import BIN_NAMES, Examples
from analyses.dictionary.sheets import write_sheets
from analyses.dictionary.shown import Shown
from interp.durability import sync_folder, write_bytes, write_json, writing_folder
from interp.types import JSON, ActivationStore, Directions


@dataclass(frozen=True)
class Found:
    """All that a build has found, ready to be written.

    Args:
        directions: The features.
        source: The store.
        identity: What makes two builds the same, with the recipe.
        accumulators: The statistics.
        examples: The examples chosen.
        windows: Their activations.
        partners: What fires together.
        shown: The items they come from.
        decoder: Whether the decoder goes into the bundle.
    """

    directions: Directions
    source: ActivationStore
    identity: JSON
    accumulators: Accumulators
    examples: Examples
    windows: Windows
    partners: Partners
    shown: Shown
    decoder: bool


def write_bundle(found: Found, path: Path) -> None:
    """Write the folder; a bundle already there is replaced at the end, by rename."""
    with writing_folder(path) as folder:
        write_features(found, folder / "features.parquet")
        write_examples(found, folder)
        write_neighbours(found, folder / "neighbours.parquet")
        if found.decoder:
            decoder = {"W_dec": found.directions.W_dec.detach().float().cpu().contiguous()}
            write_bytes(folder / "tensors.safetensors", save(decoder))
        manifest = manifest_of(found.directions, found.source, found.identity, found.accumulators, found.windows.zero)
        write_json(folder / "manifest.json", manifest)


def write_features(found: Found, path: Path) -> None:
    """One row a feature."""
    a = found.accumulators
    alive = a.count > 0
    bins = occupied(a.by_bin)
    plane = plane_of(found.directions.W_dec)
    named = found.directions.labels
    quantiles = quantiles_of(a.by_bin, bin_edges(a.signed), a.low, a.high, np.array(SHARES))
    columns: dict[str, Any] = {
        "feature": np.arange(a.d_sae),
        "count": a.count,
        "density": a.count / max(a.rows, 1),
        "mean": (a.total / np.maximum(a.count, 1)).astype(np.float32),
        "min": np.where(alive, a.low, 0).astype(np.float32),
        "max": np.where(alive, a.high, 0).astype(np.float32),
        "quantiles": np.where(alive[:, None], quantiles, 0).astype(np.float32),
        "dead": ~alive,
        "histogram": np.ascontiguousarray(a.by_bin[:, bins]),
        "x": plane[:, 0],
        "y": plane[:, 1],
        "label": [named.get(feature) for feature in range(a.d_sae)],
        "label_score": [None] * a.d_sae,
    }
    tables.write_table(path, tables.FEATURES, columns)


def write_examples(found: Found, folder: Path) -> None:
    """The examples, 64 features a row group, and the items they come from."""
    vocabulary = tables.as_column(found.shown.pieces.vocabulary, tables.EXAMPLES.field("tokens").type.value_type)
    with tables.writing_table(folder / "examples.parquet", tables.EXAMPLES) as writer:
        for first in range(0, found.accumulators.d_sae, tables.FEATURES_A_GROUP):
            borders = np.searchsorted(found.examples.feature, [first, first + tables.FEATURES_A_GROUP])
            table = example_table(found, vocabulary, slice(*(int(border) for border in borders)))
            writer.write_table(table, row_group_size=max(len(table), 1))
    write_items(found.shown, folder / "items")


def write_items(shown: Shown, folder: Path) -> None:
    """What the examples come from: text, labels, and where in which sheet the image is."""
    folder.mkdir()
    columns = {"id": shown.items, "text": shown.texts, "labels": shown.labels} | write_sheets(shown.images, folder)
    tables.write_table(folder / "items.parquet", tables.ITEMS, columns)
    sync_folder(folder)


def example_table(found: Found, vocabulary: Any, rows: slice) -> Any:
    """The rows of one row group."""
    examples, windows, pieces = found.examples[rows], found.windows, found.shown.pieces
    start, length = windows.start[rows], windows.length[rows]
    item = np.searchsorted(found.shown.items, examples.example)
    begin, count = pieces.begin[item] + start, np.where(pieces.lengths[item] > 0, length, 0)
    tokens = tables.strings(vocabulary, pieces.ids[spread(begin, begin + count)])
    kinds = tables.EXAMPLES
    columns = {
        "feature": examples.feature,
        "bin": tables.strings(BIN_NAMES, examples.bin),
        "quantile": examples.quantile,
        "rank": examples.rank,
        "item": examples.example,
        "position": examples.position,
        "activation": examples.value,
        "start": start,
        "scale": windows.scale[examples.feature],
        "window": tables.lists(length, windows.flat(rows), kinds.field("window").type.value_type),
        "tokens": tables.lists(count, tokens, kinds.field("tokens").type.value_type),
    }
    return tables.table_of(columns, kinds)


def write_neighbours(found: Found, path: Path) -> None:
    """The neighbours of each feature, 64 features a row group or nearly."""
    n = int(found.identity["recipe"]["neighbours"])
    near = all_neighbours(found.directions, found.partners, found.accumulators.count, n)
    kind = tables.strings(KINDS, near.kind)
    columns = {"feature": near.feature, "kind": kind, "other": near.other, "value": near.value}
    rows = max(1, tables.FEATURES_A_GROUP * n * len(KINDS))
    tables.write_table(path, tables.NEIGHBOURS, columns, group_rows=rows)
