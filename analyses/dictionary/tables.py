"""Parquet in and out: equal tables, equal bytes. The one home of pyarrow."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interp.durability import writing

FEATURES_A_GROUP = 64

FEATURES = pa.schema(
    [
        ("feature", pa.int32()),
        ("count", pa.int64()),
        ("density", pa.float64()),
        ("mean", pa.float32()),
        ("min", pa.float32()),
        ("max", pa.float32()),
        ("quantiles", pa.list_(pa.float32())),
        ("dead", pa.bool_()),
        ("histogram", pa.list_(pa.int64())),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("label", pa.string()),
        ("label_score", pa.float32()),
    ]
)
EXAMPLES = pa.schema(
    [
        ("feature", pa.int32()),
        ("bin", pa.string()),
        ("quantile", pa.int8()),
        ("rank", pa.int32()),
        ("item", pa.int64()),
        ("position", pa.int32()),
        ("activation", pa.float32()),
        ("start", pa.int32()),
        ("scale", pa.float32()),
        ("window", pa.list_(pa.uint8())),
        ("tokens", pa.list_(pa.string())),
    ]
)
NEIGHBOURS = pa.schema([("feature", pa.int32()), ("kind", pa.string()), ("other", pa.int32()), ("value", pa.float32())])
MAPS = pa.schema(
    [
        ("feature", pa.int32()),
        ("item", pa.int64()),
        ("position", pa.int32()),
        ("score", pa.float32()),
        ("scale", pa.float32()),
        ("values", pa.list_(pa.uint8())),
    ]
)
MAPS_FILES = "maps-"
ITEMS = pa.schema([("id", pa.int64()), ("text", pa.string()), ("labels", pa.string())])


@contextlib.contextmanager
def writing_table(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet file that appears under its name when the block ends without an error."""
    # No Arrow schema, no pandas metadata: nothing but the columns reaches the bytes.
    with writing(path) as file, pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
        yield writer


def write_table(path: Path, schema: pa.Schema, columns: dict[str, Any], group_rows: int = 1 << 16) -> None:
    """Write a table from columns of arrays or lists, free columns after those of the schema.

    Args:
        path: The file.
        schema: Columns every such file has.
        columns: One array or list for each; others become free columns.
        group_rows: Rows a row group.
    """
    table = pa.table({name: as_column(columns[name], schema.field(name).type) for name in schema.names})
    for name in columns:
        if name not in schema.names:
            table = table.append_column(name, as_column(columns[name], None))
    with writing_table(path, table.schema) as writer:
        writer.write_table(table, row_group_size=group_rows)


def table_of(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """A table of a schema."""
    return pa.table([as_column(columns[name], schema.field(name).type) for name in schema.names], schema=schema)


def as_column(values: Any, kind: pa.DataType | None) -> pa.Array:
    """An Arrow column of an array, a matrix (one list a row) or a list."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(values.ravel(), kind.value_type if kind is not None else None)
        offsets = np.arange(0, values.size + 1, max(values.shape[1], 1), dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), flat)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    return pa.array(values, kind)


def lists(lengths: NDArray[np.int64], flat: Any, kind: pa.DataType) -> pa.ListArray:
    """A column of lists from their lengths and all their values end to end."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = flat if isinstance(flat, pa.Array) else pa.array(flat, kind)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def strings(vocabulary: Sequence[str] | pa.Array, ids: NDArray[np.integer]) -> pa.Array:
    """A column of strings from their places in a vocabulary."""
    return as_column(vocabulary, pa.string()).take(pa.array(ids))


def read_columns(path: Path) -> dict[str, NDArray]:
    """A whole table as NumPy columns; lists of one length become a matrix."""
    table = pq.read_table(path)
    return {name: as_numpy(table.column(name)) for name in table.column_names}


def as_numpy(column: pa.ChunkedArray) -> NDArray:
    """One column as NumPy: strings as objects, equally long lists as a matrix."""
    whole = column.combine_chunks()
    if pa.types.is_list(whole.type) and not pa.types.is_string(whole.type.value_type):
        lengths = whole.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths) and (lengths == lengths[0]).all():
            return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(lengths), lengths[0])
    return whole.to_numpy(zero_copy_only=False)


def read_group(path: Path, group: int, feature: int) -> list[dict[str, Any]]:
    """Rows of one feature, reading its row group only."""
    table = pq.ParquetFile(path).read_row_group(group)
    first, last = np.searchsorted(table.column("feature").to_numpy(), [feature, feature + 1])
    return table.slice(first, last - first).to_pylist()


@dataclass(frozen=True)
class Lists:
    """A column of lists: list i is `flat[offsets[i]:offsets[i + 1]]`.

    Args:
        flat: All their values, end to end.
        offsets: Where each list begins, and the end.
    """

    flat: NDArray
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, column: pa.ListArray, flat: NDArray) -> "Lists":
        """The lists of an Arrow column, around other values in place of its own; null counts as empty."""
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        return cls(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


@dataclass(frozen=True)
class Group:
    """The examples of some features, column by column.

    Args:
        features: The features.
        starts: Feature i of these has examples `starts[i]` to `starts[i + 1]`.
        columns: What each example has one of, as in the file.
        windows: The windows.
        tokens: The pieces shown, as places in `pieces`.
        pieces: The different pieces, in the order in which they come up.
    """

    features: range
    starts: list[int]
    columns: dict[str, list[Any]]
    windows: Lists
    tokens: Lists
    pieces: list[str]


def read_groups(path: Path, features: int) -> Iterator[Group]:
    """The examples of all features, a row group at a time; no Python object is made of each token."""
    with pq.ParquetFile(path) as file:
        for group, first in enumerate(range(0, features, FEATURES_A_GROUP)):
            table = file.read_row_group(group)
            columns = {name: table.column(name).combine_chunks() for name in table.column_names}
            windows, tokens = columns.pop("window"), columns.pop("tokens")
            pieces = tokens.flatten().dictionary_encode()
            here = range(first, min(first + FEATURES_A_GROUP, features))
            owners = columns["feature"].to_numpy()
            yield Group(
                here,
                np.searchsorted(owners, [*here, here.stop]).tolist(),
                {name: column.to_pylist() for name, column in columns.items()},
                Lists.of(windows, windows.flatten().to_numpy()),
                Lists.of(tokens, pieces.indices.to_numpy()),
                pieces.dictionary.to_pylist(),
            )


def read_maps(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The maps of all features, a row group at a time, with the steps of each as an array."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            values = table.column("values").combine_chunks()
            steps = Lists.of(values, values.flatten().to_numpy())
            rows = table.drop_columns(["values"]).to_pylist()
            for row, begin, end in zip(rows, steps.offsets, steps.offsets[1:], strict=False):
                row["values"] = steps.flat[begin:end]
            yield rows


def read_rows(path: Path, feature: int) -> list[dict[str, Any]]:
    """Rows of one feature, by the file's statistics."""
    return pq.read_table(path, filters=[("feature", "=", feature)]).to_pylist()


def labels_json(labels: Any) -> str:
    """Labels of an item as JSON, keys sorted."""
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False)
