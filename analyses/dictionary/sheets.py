"""Thumbnails of the items that examples refer to, each once, many to a picture."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from interp.durability import write_bytes

SIDE = 1024
COLUMNS = ("sheet", "left", "top", "width", "height")


def sheet_name(number: int) -> str:
    """File of a sheet inside `items/`."""
    return f"sheet-{number:04d}.png"


def write_sheets(images: Sequence[UInt8[Tensor, "_ _ _"] | None], folder: Path) -> dict[str, NDArray[np.int32]]:
    """Write the sheets, and say where each image is.

    Args:
        images: A thumbnail an item, [h, w, channels] with 1 or 3 channels; None where there is none.
        folder: Where the sheets go.

    Returns:
        A column each for sheet and box (pixels) of every item, -1 where it has no image; nothing if none has.

    Raises:
        ValueError: If a thumbnail is larger than a sheet.
    """
    if all(image is None for image in images):
        return {}
    boxes = np.full((len(images), len(COLUMNS)), -1, np.int32)
    placed = {i: image for i, image in enumerate(images) if image is not None}
    for i, box in _packed([(i, image.shape[0], image.shape[1]) for i, image in placed.items()]):
        boxes[i] = (box.sheet, box.left, box.top, box.width, box.height)
    for number in range(int(boxes[:, 0].max()) + 1):
        here = np.flatnonzero(boxes[:, 0] == number)
        write_bytes(folder / sheet_name(number), _png(_drawn([placed[int(i)] for i in here], boxes[here])))
    return dict(zip(COLUMNS, boxes.T, strict=True))


class Sheets:
    """Sheets that were written, read when asked for.

    Args:
        folder: Where they are.
        items: Columns of the items' table.
    """

    def __init__(self, folder: Path, items: Mapping[str, NDArray]) -> None:
        self._folder = folder
        self.boxes: dict[int, tuple[int, int, int, int, int]] = {}
        if COLUMNS[0] in items:
            boxes = zip(items["id"].tolist(), *(items[name].tolist() for name in COLUMNS), strict=True)
            self.boxes = {item: tuple(box) for item, *box in boxes if box[0] >= 0}
        self.files = [
            folder / sheet_name(i) for i in range(1 + max((box[0] for box in self.boxes.values()), default=-1))
        ]
        self._pixels: dict[int, NDArray[np.uint8]] = {}

    def image(self, item: int) -> NDArray[np.uint8]:
        """The thumbnail of an item, [h, w] or [h, w, 3].

        Raises:
            ValueError: If no example refers to the item, or it has no thumbnail.
        """
        if item not in self.boxes:
            raise ValueError(f"item is {item}, but thumbnails are of the {len(self.boxes)} items that examples show.")
        sheet, left, top, width, height = self.boxes[item]
        if sheet not in self._pixels:
            from PIL import Image

            self._pixels[sheet] = np.asarray(Image.open(self.files[sheet]))
        return self._pixels[sheet][top : top + height, left : left + width]


@dataclass(frozen=True)
class _Box:
    sheet: int
    left: int
    top: int
    width: int
    height: int


def _packed(sizes: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, _Box]]:
    """Place images side by side in rows, in the given order: equal items give equal sheets."""
    sheet = left = top = row = 0
    for i, height, width in sizes:
        if max(height, width) > SIDE:
            raise ValueError(f"item {i} has a thumbnail of {height} x {width}, but a sheet is {SIDE} wide: shrink it.")
        if left + width > SIDE:
            left, top, row = 0, top + row, 0
        if top + height > SIDE:
            sheet, left, top, row = sheet + 1, 0, 0, 0
        yield i, _Box(sheet, left, top, width, height)
        left, row = left + width, max(row, height)


def _drawn(images: Sequence[UInt8[Tensor, "_ _ _"]], boxes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The pixels of one sheet, no larger than what it holds."""
    right, bottom = (boxes[:, 1] + boxes[:, 3]).max(), (boxes[:, 2] + boxes[:, 4]).max()
    channels = max(image.shape[2] for image in images)
    pixels = np.zeros((bottom, right, channels), np.uint8)
    for image, (_, left, top, width, height) in zip(images, boxes, strict=True):
        pixels[top : top + height, left : left + width] = image.numpy()
    return pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
