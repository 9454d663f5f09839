"""Images of a folder or of a Hugging Face dataset, as the bytes of their files: a corrupt one stops nothing here."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from interp.pictures import with_bytes

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}

Row = dict[str, Any]


class FolderImages(Sequence[Row]):
    """The image files under a folder, sorted by path.

    An item holds `image` (the file's `bytes`, and its `path` inside the folder) and `class` (the first folder of that
    path; empty where there is none).

    Args:
        folder: The folder.

    Raises:
        ValueError: If it is no folder, or there is no image under it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"folder_or_dataset is {folder}, but there is no such folder: check the path.")
        files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        found = (path.relative_to(folder) for path in files)
        shown = (path for path in found if not any(part.startswith(".") for part in path.parts))
        self._folder, self.name = folder, folder.resolve().name
        self._paths = sorted(path.as_posix() for path in shown)
        if not self._paths:
            raise ValueError(f"folder_or_dataset is {folder}, but no {', '.join(sorted(_SUFFIXES))} is under it.")

    @property
    def _fingerprint(self) -> str:
        """Hash of names, lengths and times: it spares a resumed harvest the reading of what is done."""
        states = [(path, (self._folder / path).stat()) for path in self._paths]
        return hashlib.sha256(repr([(path, s.st_size, s.st_mtime_ns) for path, s in states]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path = self._paths[index]
        first, slash, _ = path.partition("/")
        return {
            "image": {"bytes": (self._folder / path).read_bytes(), "path": path},
            "class": first if slash else "",
        }


class StreamedImages:
    """Rows of a Hugging Face dataset with the bytes of their images; the column `class` has the label's name, and is
    empty where a row has none.

    Args:
        rows: The dataset, without decoding.
        column: Of the images.
        label: Of the labels; None for none.
        names: What the labels are called, by number.
    """

    def __init__(self, rows: Any, *, column: str, label: str | None, names: Sequence[str]) -> None:
        self._rows, self._column, self._label, self._names = rows, column, label, names
        self.name = str(getattr(rows.info, "dataset_name", None) or type(rows).__name__)

    @property
    def _fingerprint(self) -> str | None:
        return getattr(self._rows, "_fingerprint", None)

    def skip(self, count: int) -> Iterable[Row]:
        """All rows but the first."""
        return (self._read(row) for row in self._rows.skip(count))

    def __iter__(self) -> Iterator[Row]:
        return (self._read(row) for row in self._rows)

    def _read(self, row: Mapping[str, Any]) -> Row:
        image = row[self._column]
        if isinstance(image, Mapping) and image["bytes"] is None and "://" in str(image["path"]):
            from datasets.utils.file_utils import xopen

            with xopen(image["path"], "rb") as file:
                image = {"bytes": file.read(), "path": image["path"].partition("::")[0].rpartition("://")[2]}
        read = {**row, self._column: with_bytes(image)}
        if self._label is not None:
            value = row[self._label]
            if value is None or (self._names and value == -1):  # how datasets say that there is none
                read["class"] = ""
            else:
                read["class"] = self._names[value] if self._names else str(value)
        return read


class DatasetImages(StreamedImages, Sequence[Row]):
    """The same, of a dataset that is at hand."""

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._read(self._rows[index])


def images(
    folder_or_dataset: str | Path | Any, *, column: str = "image", label: str | None = "label"
) -> FolderImages | StreamedImages:
    """Images ready for `harvest`, with the label `class`.

    Args:
        folder_or_dataset: A folder, whose subfolders are the classes; or one split of a Hugging Face dataset,
            streamed or not.
        column: The dataset's column of images.
        label: The dataset's column of labels, where it has that one.

    Raises:
        ValueError: If there is no image.
    """
    if isinstance(folder_or_dataset, str | Path):
        return FolderImages(Path(folder_or_dataset).expanduser())
    import datasets

    rows, features = folder_or_dataset, folder_or_dataset.features or {}
    if features and column not in features:
        raise ValueError(
            f"column is {column!r}, but the dataset has {', '.join(features)}: name the one of images (in a harvest, "
            "image=)."
        )
    if isinstance(features.get(column), datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    names = getattr(features.get(label), "names", ())
    kind = DatasetImages if hasattr(rows, "__len__") else StreamedImages
    return kind(rows, column=column, label=label if label in features else None, names=names)
