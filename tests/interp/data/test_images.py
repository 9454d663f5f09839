import io
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from interp.data.images import images


def _png(value: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(data, "png")
    return data.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, value in {"cat/b.png": 1, "cat/deep/a.PNG": 2, "ant/c.png": 3, "top.png": 4, ".cache/x.png": 5}.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(_png(value))
    (tmp_path / "set/cat/notes.txt").write_text("no picture")
    (tmp_path / "set/cat/broken.jpg").write_bytes(b"")
    return tmp_path / "set"


def test_a_folder_is_read_in_order_with_its_classes(folder: Path) -> None:
    rows = images(folder)
    assert [(row["image"]["path"], row["class"]) for row in rows] == [
        ("ant/c.png", "ant"),
        ("cat/b.png", "cat"),
        ("cat/broken.jpg", "cat"),
        ("cat/deep/a.PNG", "cat"),
        ("top.png", ""),
    ]
    assert rows[0]["image"]["bytes"] == _png(3)
    assert rows.name == "set"
    assert [row["class"] for row in rows[1:3]] == ["cat", "cat"]


def test_a_folder_that_changes_is_noticed(folder: Path) -> None:
    before = images(folder)._fingerprint
    assert images(str(folder))._fingerprint == before
    (folder / "cat/b.png").write_bytes(_png(1) + b" ")
    assert images(folder)._fingerprint != before


@pytest.mark.parametrize("streamed", [False, True])
def test_a_dataset_gives_bytes_and_the_names_of_labels(streamed: bool) -> None:
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"]), "id": datasets.Value("int64")}
    )
    table = datasets.Dataset.from_dict(
        {"picture": [_table(_png(1)), _table(b"broken"), _table(_png(3))], "label": [0, 1, 1], "id": [7, 8, 9]},
        features=features,
    )
    rows: Any = images(table.to_iterable_dataset() if streamed else table, column="picture")
    found = list(rows)
    assert [row["picture"]["bytes"] for row in found] == [_png(1), b"broken", _png(3)]
    assert [row["class"] for row in found] == ["ant", "bee", "bee"]
    assert [row["id"] for row in rows.skip(1)] == [8, 9]
    assert hasattr(rows, "__len__") != streamed
    assert images(table, column="picture", label="id")[0]["class"] == "7"
    assert "class" not in images(table, column="picture", label="none")[0]
    with pytest.raises(ValueError, match="column is 'image', but the dataset has picture, label, id"):
        images(table)


def test_rows_without_a_label_have_no_class() -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    table = datasets.Dataset.from_dict({"image": [_table(_png(1))] * 3, "label": [1, -1, None]}, features=features)
    assert [row["class"] for row in images(table)] == ["bee", "", ""]


def test_what_is_named_like_a_file_and_is_none_is_left_out(folder: Path) -> None:
    before = images(folder)
    (folder / "cat/folder.png").mkdir()
    (folder / "cat/gone.png").symlink_to(folder / "nowhere.png")
    after = images(folder)
    assert list(after) == list(before)
    assert after._fingerprint == before._fingerprint


def _table(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}


def test_images_inside_archives_are_read(tmp_path: Path) -> None:
    """What a streamed dataset of the hub looks like: addresses instead of bytes."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("bee/x.png", _png(9))
    rows = [{"image": {"bytes": None, "path": f"zip://bee/x.png::{tmp_path}/a.zip"}}]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    (row,) = images(datasets.Dataset.from_list(rows, features=features))
    assert row["image"] == {"bytes": _png(9), "path": "bee/x.png"}


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="but there is no such folder"):
        images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"but no \.bmp, .* is under it"):
        images(tmp_path)
