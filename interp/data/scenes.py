"""Scenes: glyphs on textured grounds, with exact masks; ground truth for maps and segmentation."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from interp.data.glyphs import Glyphs, drawn_at, glyphs, labelled
from interp.data.textures import textured
from interp.stores.shuffling import counter_key

_GROUND, _DISTRACTORS, _OBJECTS = 1, 2, 3  # purposes: what one draws never moves another
_DARK = 110  # grounds and distractors stay under it, objects over 170: a pixel of an object always shows
_BRIGHT = (170, 256)
_FAINTEST = 32  # ink below it is no ink: what remains changes its pixel by at least 7 of 255
_TRIES = 30
_EXTENT = (0.2, 0.45)  # of the scene's shorter side

Row = dict[str, Any]
Image = NDArray[np.uint8]


class Scenes(Sequence[Row]):
    """Scenes made when asked for; item i is a function of (seed, i) and the arguments.

    An item holds `image` [h, w], `mask` [k, h, w] with 1 where object k is, `boxes` [k, 4] (left, top, right and
    bottom of each mask, the last two exclusive), and for each object its `labels` (the Unicode category by default),
    `codepoints` and `fonts`.

    Args:
        shapes: The glyphs that objects are drawn from.
        n: Number of scenes.
        seed: Names the draw.
        size: Height and width.
        objects: Fewest and most objects.
        distractors: Fewest and most distractors.
        label: Label of the glyphs that names an object's class.
    """

    def __init__(
        self,
        shapes: Glyphs,
        n: int,
        *,
        seed: int,
        size: tuple[int, int],
        objects: tuple[int, int],
        distractors: tuple[int, int],
        label: str,
    ) -> None:
        self.name = shapes.name.replace("glyphs", "scenes")
        self._shapes, self._n, self._seed, self._size = shapes, n, seed, size
        self._objects, self._distractors, self._label = objects, distractors, label

    @property
    def _fingerprint(self) -> str:
        """Hash of everything the scenes are a function of."""
        rule = (self._n, self._seed, self._size, self._objects, self._distractors, self._label, np.__version__)
        return hashlib.sha256(f"{rule} {self._shapes._fingerprint}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        number = index + self._n if index < 0 else index
        if not 0 <= number < self._n:
            raise IndexError(f"scene is {index}, but there are scenes 0 to {self._n - 1}.")
        image = self._ground(number)
        return self._with_objects(image, number)

    def _rng(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng(int(counter_key(self._seed, purpose, number)))

    def _ground(self, number: int) -> Image:
        """Texture, and the distractors on it."""
        image = (textured(self._size, self._rng(_GROUND, number)) * _DARK).astype(np.uint8)
        rng = self._rng(_DISTRACTORS, number)
        for _ in range(rng.integers(*self._distractors, endpoint=True)):
            image[_stroke(self._size, rng)] = rng.integers(_DARK)
        return image

    def _with_objects(self, image: Image, number: int) -> Row:
        rng = self._rng(_OBJECTS, number)
        row: Row = {"mask": [], "boxes": [], "labels": [], "codepoints": [], "fonts": []}
        taken = np.zeros(self._size, bool)
        for _ in range(rng.integers(*self._objects, endpoint=True)):
            point, font = self._shapes.entries[int(rng.integers(len(self._shapes)))]
            ink = _ink(point, font, rng.uniform(*_EXTENT) * min(self._size))
            place = _free_place(taken, ink, rng)
            if place is None:
                continue
            taken[place] = True
            alpha = np.zeros(self._size, np.int32)
            alpha[place] = ink
            image = ((image * (255 - alpha) + rng.integers(*_BRIGHT) * alpha + 127) // 255).astype(np.uint8)
            row["mask"].append(alpha > 0)
            row["boxes"].append((place[1].start, place[0].start, place[1].stop, place[0].stop))
            about = labelled(point, font)
            row["labels"].append(about[self._label])
            row["codepoints"].append(about["codepoint"])
            row["fonts"].append(font)
        row["mask"] = np.array(row["mask"], np.uint8).reshape(-1, *self._size)
        row["boxes"] = np.array(row["boxes"], np.int64).reshape(-1, 4)
        return {"image": image} | row


def scenes(
    n: int,
    *,
    seed: int,
    size: int | tuple[int, int] = 64,
    objects: tuple[int, int] = (1, 3),
    distractors: tuple[int, int] = (0, 4),
    split: Literal["all", "train", "held_out"] = "all",
    label: str = "category",
) -> Scenes:
    """Draw scenes with several objects, each with the mask of just its pixels.

    Objects are bright glyphs that overlap nothing; the ground is a dark texture under a few dark bars, discs and
    rings, which have no label. Without objects (`objects=(0, 0)`) the same seed gives the same ground, so that two
    scenes differ just where a mask is 1.

    Args:
        n: Number of scenes.
        seed: Names the draw.
        size: Height and width in pixels; one number for both; at least 16.
        objects: Fewest and most glyphs of a scene; those that find no room are left out.
        distractors: Fewest and most shapes without a label.
        split: Which glyphs; held-out code points are in no scene of `train`.
        label: What names an object's class: `category`, `script`, `block`, `codepoint`, ...

    Raises:
        ValueError: If an argument is out of range.
    """
    shape = (size, size) if isinstance(size, int) else size
    shapes = glyphs(split)
    shapes[:1].labels(label)
    if n < 0 or min(shape) < 16:
        raise ValueError(f"n is {n} and size {size}, but a scene has at least 16 pixels a side: give more.")
    for name, (fewest, most) in (("objects", objects), ("distractors", distractors)):
        if not 0 <= fewest <= most:
            raise ValueError(f"{name} is {(fewest, most)}, but it is fewest and most: give 0 <= fewest <= most.")
    return Scenes(shapes, n, seed=seed, size=shape, objects=objects, distractors=distractors, label=label)


def _ink(point: int, font: str, extent: float) -> Image:
    """A glyph of about this extent, cut to what is not faint; small marks stay smaller than letters."""
    side = max(drawn_at(point, font, 32).shape)
    ink = drawn_at(point, font, max(6, round(min(32 * extent / side, 2 * extent))))
    ink = np.where(ink >= _FAINTEST, ink, 0).astype(np.uint8)
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(taken: NDArray[np.bool_], ink: Image, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Where a glyph overlaps no other, if some draws find it."""
    (h, w), (height, width) = ink.shape, taken.shape
    for _ in range(_TRIES if h <= height and w <= width else 0):
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        place = slice(int(top), int(top) + h), slice(int(left), int(left) + w)
        if not taken[place].any():
            return place
    return None


def _stroke(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where a bar, a disc or a ring is."""
    y, x = np.indices(shape)
    centre_y, centre_x = (rng.uniform(0, side) for side in shape)
    radius, angle = rng.uniform(0.08, 0.2) * min(shape), rng.uniform(0, np.pi)
    along = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)
    across = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)
    distance = np.hypot(along, across)
    bar = (abs(along) <= 2 * radius) & (abs(across) <= 1.5)
    return (bar, distance <= radius, abs(distance - radius) <= 1.5)[rng.integers(3)]
