from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analyses.dictionary.bundle import FeatureDictionary
from analyses.dictionary.tables import (
    NEIGHBOURS,
    Lists,
    lists,
    read_columns,
    read_groups,
    read_rows,
    strings,
    write_table,
    writing_table,
)


def columns():
    return {
        "feature": np.repeat(np.arange(4), 3),
        "kind": ["decoder", "encoder", "cofire"] * 4,
        "other": np.arange(12),
        "value": np.linspace(0, 1, 12),
    }


def test_tables_come_back_with_free_columns_and_without_foreign_metadata(tmp_path):
    matrix = np.arange(24.0).reshape(12, 2)
    write_table(
        tmp_path / "t.parquet", NEIGHBOURS, columns() | {"probe": matrix, "named": [None, "<b>&", *"abcdefghij"]}
    )
    table = read_columns(tmp_path / "t.parquet")
    assert list(table) == [*NEIGHBOURS.names, "probe", "named"]
    np.testing.assert_array_equal(table["probe"], matrix)
    assert table["named"].tolist()[:2] == [None, "<b>&"]
    assert pq.ParquetFile(tmp_path / "t.parquet").metadata.metadata is None
    assert [row["other"] for row in read_rows(tmp_path / "t.parquet", 2)] == [6, 7, 8]


def test_equal_tables_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, NEIGHBOURS, columns())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_that_fails_leaves_nothing(tmp_path):
    try:
        with writing_table(tmp_path / "t.parquet", NEIGHBOURS):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert list(tmp_path.iterdir()) == []


def test_strings_from_places_in_a_vocabulary():
    for vocabulary in (("a", "é", "\n"), pa.array(["a", "é", "\n"])):
        assert strings(vocabulary, np.array([2, 0, 0, 1], np.int8)).to_pylist() == ["\n", "a", "a", "é"]
    assert strings([], np.empty(0, np.int32)).to_pylist() == []


def test_lists_from_lengths():
    assert lists(np.array([2, 0, 1]), np.array([5, 6, 7], np.uint8), pa.uint8()).to_pylist() == [[5, 6], [], [7]]


def test_groups_hold_what_the_rows_hold(planted, store, tmp_path):
    path = FeatureDictionary.build(planted(), store, tmp_path / "dict", progress=False).path / "examples.parquet"
    seen = []
    for group in read_groups(path, 70):
        for feature, (begin, end) in zip(group.features, pairwise(group.starts), strict=True):
            for i in range(begin, end):
                window, tokens = (
                    part.flat[part.offsets[i] : part.offsets[i + 1]].tolist() for part in (group.windows, group.tokens)
                )
                row = {name: column[i] for name, column in group.columns.items()}
                assert row["feature"] == feature
                seen.append(row | {"window": window, "tokens": [group.pieces[token] for token in tokens]})
        assert group.pieces == list(dict.fromkeys(piece for row in seen[-end:] for piece in row["tokens"]))
    assert seen == pq.read_table(path).to_pylist() and len(seen) > 1000


def test_lists_of_null_are_empty():
    column = pa.array([[1, 2], None, [], [3]], pa.list_(pa.uint8()))
    found = Lists.of(column.slice(1), column.slice(1).flatten().to_numpy())
    assert found.flat.tolist() == [3] and found.offsets.tolist() == [0, 0, 0, 1]
