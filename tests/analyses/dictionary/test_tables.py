import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analyses.dictionary.tables import NEIGHBOURS, Pieces, lists, read_columns, read_rows, write_table, writing_table


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


def test_pieces_are_cut_from_all_items_end_to_end():
    texts = [("a", "b<"), (), ("é", "a", "\n")]
    pieces = Pieces(texts)
    assert pieces.lengths.tolist() == [2, 0, 3] and pieces.begin.tolist() == [0, 2, 2]
    assert pieces.taken(np.array([4, 0, 2, 1])).to_pylist() == ["\n", "a", "é", "b<"]
    assert Pieces([]).taken(np.empty(0, np.int64)).to_pylist() == []
    assert Pieces([(), ()]).taken(np.empty(0, np.int64)).to_pylist() == []


def test_lists_from_lengths():
    assert lists(np.array([2, 0, 1]), np.array([5, 6, 7], np.uint8), pa.uint8()).to_pylist() == [[5, 6], [], [7]]
