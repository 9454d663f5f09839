"""Items of any dataset, one after another: what a harvest reads, and the hash of what it has read."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.pictures import hashable, with_bytes

_ID_COLUMNS = ("input_ids", "tokens")


@dataclass(frozen=True)
class Raw:
    """One item, as the dataset gives it.

    Args:
        content: A text, a tensor of token ids, a picture, or whatever `collate` takes.
        labels: Its names.
    """

    content: Any
    labels: Mapping[str, str]

    @property
    def is_empty(self) -> bool:
        """A text of white space, or no token at all."""
        if isinstance(self.content, str):
            return not self.content.strip()
        return isinstance(self.content, Tensor) and self.content.numel() == 0


class Source:
    """A dataset read in order.

    Args:
        dataset: A Hugging Face dataset (streamed or not), or any sequence or iterable of texts or of mappings.
        text: The column that holds the text; where it is missing, `input_ids` or `tokens` are taken as token ids.
        labels: Columns that name an item.
        whole: Whether items go as they are to a `collate` of the user's.
        image: The column that holds the picture, where pictures are read.

    Raises:
        ValueError: If the dataset is a text itself, a mapping of splits, or cannot be iterated.
    """

    def __init__(
        self, dataset: Any, *, text: str, labels: Sequence[str], whole: bool, image: str | None = None
    ) -> None:
        if isinstance(dataset, str | bytes | Mapping) or not (hasattr(dataset, "__iter__") or _is_sequence(dataset)):
            raise ValueError(
                f"dataset is a {type(dataset).__name__}, but a harvest reads items one by one: give a list of "
                "texts, one split of a Hugging Face dataset, or any iterable of mappings."
            )
        if image is not None and hasattr(dataset, "cast_column"):
            from interp.data.images import images

            dataset = images(dataset, column=image)
        self._dataset, self._text, self._labels, self._whole = dataset, text, tuple(labels), whole
        self._image = image
        info = getattr(dataset, "info", None)
        known = getattr(dataset, "name", None) or getattr(info, "dataset_name", None)
        self.name = str(known or type(dataset).__name__)

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def length(self) -> int | None:
        """Number of items; None where only reading tells."""
        return len(self._dataset) if _is_sequence(self._dataset) else None

    @property
    def hint(self) -> str | None:
        """The dataset's own word for its content; equal hints spare a resumed harvest the reading of what is done."""
        return getattr(self._dataset, "_fingerprint", None)

    def read(self, start: int) -> Iterator[Raw]:
        """Items from one on."""
        rows: Iterable[Any]
        if start and hasattr(self._dataset, "skip"):
            rows = self._dataset.skip(start)
        elif _is_sequence(self._dataset):
            rows = (self._dataset[i] for i in range(start, len(self._dataset)))
        else:
            rows = itertools.islice(self._dataset, start, None)
        return (self._raw(row, start + i) for i, row in enumerate(rows))

    def _raw(self, row: Any, number: int) -> Raw:
        if self._image is not None and (not isinstance(row, Mapping) or {*row} <= {"bytes", "path"}):
            return Raw(with_bytes(row), {})
        if not isinstance(row, Mapping):
            if not isinstance(row, str) and not self._whole:
                raise ValueError(
                    f"item {number} of the dataset is a {type(row).__name__}, but a text or a mapping with the column "
                    f"{self._text!r} is needed: map the dataset, or give collate= for items that are no text."
                )
            return Raw(row, {})
        missing = [name for name in self._labels if name not in row]
        if missing:
            raise ValueError(f"labels has {missing}, but item {number} has the columns {', '.join(row)}: name those.")
        labels = {name: str(row[name]) for name in self._labels}
        return Raw(row if self._whole else self._content(row, number), labels)

    def _content(self, row: Mapping[str, Any], number: int) -> Any:
        if self._image is not None:
            if self._image in row:
                return with_bytes(row[self._image])
            raise ValueError(
                f"image is {self._image!r}, but item {number} has the columns {', '.join(row)}: name the one that "
                "holds the picture."
            )
        if self._text in row:
            if isinstance(row[self._text], str):
                return row[self._text]
            raise ValueError(
                f"column {self._text!r} of item {number} holds a {type(row[self._text]).__name__}, but text is needed: "
                "name another column with text=."
            )
        for column in _ID_COLUMNS:
            if column in row:
                ids = torch.as_tensor(row[column], dtype=torch.long)
                return ids[torch.as_tensor(row["attention_mask"]).bool()] if "attention_mask" in row else ids
        raise ValueError(
            f"text is {self._text!r}, but item {number} has the columns {', '.join(row)}: name the one that holds the "
            f"text, or give token ids in {' or '.join(_ID_COLUMNS)}."
        )


def chained(chain: str, raws: Iterable[Raw]) -> str:
    """The running hash of everything read, one item further at a time: the same however it is cut into chunks."""
    for raw in raws:
        digest = hashlib.sha256(chain.encode())
        _feed(digest, raw.content)
        digest.update(json.dumps(dict(raw.labels), sort_keys=True).encode() if raw.labels else b"{}")
        chain = digest.hexdigest()
    return chain


def _feed(digest: Any, content: Any) -> None:
    """Type, shape and bytes of a value, so that no two values feed the same."""
    if hasattr(content, "getpalette"):  # a Pillow image
        content = hashable(content)
    if isinstance(content, Mapping):
        content = [part for key in sorted(content) for part in (key, content[key])]
    if isinstance(content, list | tuple):
        digest.update(f"list {len(content)} ".encode())
        for part in content:
            _feed(digest, part)
        return
    if isinstance(content, Tensor):
        content = content.detach().cpu().numpy()
    if hasattr(content, "tobytes"):
        array = np.ascontiguousarray(content)
        content = f"{_dtype_name(array.dtype)} {array.shape}", array.tobytes()
    elif isinstance(content, str | int | float | bool | None):
        content = type(content).__name__, str(content).encode("utf-8", "surrogatepass")
    elif isinstance(content, bytes):
        content = "bytes", content
    else:
        raise ValueError(
            f"an item holds a {type(content).__name__}, which cannot be hashed: give texts, numbers, tensors, arrays "
            "or images, so that a resumed harvest can tell that its dataset is the same."
        )
    kind, data = content
    digest.update(f"{kind} {len(data)} ".encode() + data)


_dtype_name = functools.cache(str)  # numpy spells a type anew each time, at a third of the cost of a small image


def _is_sequence(dataset: Any) -> bool:
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
