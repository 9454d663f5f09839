"""Glyphs: letters, digits, symbols and punctuation in the fonts that come with matplotlib, as labelled images.

Thirty thousand images with labels that need no download; the same character in two fonts is a positive pair.
"""

import functools
import hashlib
import importlib.util
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from interp.stores.shuffling import counter_key

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
)
LABELS = ("codepoint", "character", "name", "category", "block", "script", "font")
_CATEGORIES = "LNSP"
_FEWEST_FONTS = 4
_BLANK = {0x2800, 0xFFFC}  # shared too, but there is nothing to see: the empty braille cell, the object's placeholder
_HELD_OUT = 0.2
_EM = 0.75  # of the image's side: capitals are half as tall as the image, and few glyphs must shrink to fit
_MARGIN = 1
_SPLIT, _ORDER = 1, 2  # purposes of the counter-based hash

Row = dict[str, Any]


class Glyphs(Sequence[Row]):
    """Images of single characters, each drawn when it is asked for.

    An item holds `image`, light ink on black, and the labels `codepoint` ("U+0041"), `character`, `name`, `category`
    (Unicode's, "Lu"), `block`, `script` and `font`.

    Args:
        entries: Code point and font of each image.
        size: Side of the images in pixels.
        name: What they are, for manifests.
    """

    def __init__(self, entries: Sequence[tuple[int, str]], *, size: int, name: str) -> None:
        self._entries, self.size, self.name = list(entries), size, name

    @property
    def _fingerprint(self) -> str:
        """Hash of what the pixels follow from: entries, fonts, and the library that draws them."""
        import PIL
        from PIL import features

        drawn_by = PIL.__version__, features.version("freetype2"), self.size, _EM, _MARGIN
        digest = hashlib.sha256(repr((drawn_by, self._entries)).encode())
        for font in sorted({font for _, font in self._entries}):
            digest.update(_font_hash(font).encode())
        return digest.hexdigest()

    @functools.cached_property
    def images(self) -> UInt8[Tensor, "n size size"]:
        """Every image; all of them take 32 MB."""
        images = np.zeros((len(self), self.size, self.size), np.uint8)
        for i, entry in enumerate(self._entries):
            images[i] = _drawn(*entry, self.size)
        return torch.from_numpy(images)

    @property
    def entries(self) -> Sequence[tuple[int, str]]:
        """Code point and font of each image."""
        return self._entries

    def labels(self, name: str) -> list[str]:
        """One label of every image.

        Raises:
            ValueError: If there is no such label.
        """
        if name not in LABELS:
            raise ValueError(f"name is {name!r}, but glyphs have the labels {', '.join(LABELS)}: name one.")
        return [labelled(*entry)[name] for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Glyphs": ...
    def __getitem__(self, index: int | slice) -> "Row | Glyphs":
        if isinstance(index, slice):
            return Glyphs(self._entries[index], size=self.size, name=self.name)
        entry = self._entries[index]
        drawn = self.images[index].numpy() if "images" in self.__dict__ else _drawn(*entry, self.size)
        return {"image": drawn, **labelled(*entry)}

    def __repr__(self) -> str:
        points = len({point for point, _ in self._entries})
        return f"Glyphs({self.name!r}: {len(self)} images of {points} code points, {self.size} x {self.size})"


def glyphs(split: Literal["all", "train", "held_out"] = "all", *, size: int = 32, distinct: bool = False) -> Glyphs:
    """Draw the letters, digits, symbols and punctuation that at least 4 of 11 fonts share.

    The rule: regular, bold and italic of DejaVu Sans, DejaVu Serif and STIX General, and regular and bold of DejaVu
    Sans Mono; every code point of the categories L*, N*, S* and P* that at least 4 of them hold: 4,209 code points and
    31,333 images, less 2 and 14 that are blank. Each glyph is centred by its ink, at one size of type for all but
    those that must shrink so that nothing is cut. The order mixes the code points, with the fonts of one side by
    side: a prefix is a fair sample. All of them take 2 to 4 s.

    Code points are split, never the fonts of one: a fifth of them is held out. Some images are equal all the same: 11 %
    of the held-out ones have a twin in `train` (Latin A and Greek Alpha, the left and the right half block), and a
    fifth of all one in another font (box drawing, braille).

    Args:
        split: Which part.
        size: Side of the images in pixels, at least 9.
        distinct: Leave out images that repeat another; of the held-out ones also those that repeat one of `train`.

    Raises:
        ValueError: If `split` or `size` is out of range.
        ImportError: If matplotlib, which brings the fonts, is not installed.
    """
    if split not in ("all", "train", "held_out"):
        raise ValueError(f"split is {split!r}, but glyphs are split in 'train' and 'held_out': give one, or 'all'.")
    if size < 9:
        raise ValueError(f"size is {size}, but a glyph needs at least 9 pixels a side: give more.")
    points = [p for p in _ordered_points() if split == "all" or (split == "held_out") == _is_held_out(p)]
    entries = [(point, font) for point in points for font in FONTS if point in _points_of(font)]
    if distinct:
        repeats = _repeats(size)
        entries = [entry for entry in entries if entry not in repeats]
    return Glyphs(entries, size=size, name=f"glyphs {split}{', distinct' if distinct else ''}")


def drawn_at(point: int, font: str, em: int) -> NDArray[np.uint8]:
    """The ink of one glyph, cut to its extent.

    Args:
        point: The code point.
        font: One of `FONTS`.
        em: Size of the type in pixels.
    """
    from PIL import Image, ImageDraw

    face, character = _face(font, em), chr(point)
    left, top, right, bottom = face.getbbox(character)
    canvas = Image.new("L", (max(int(right - left), 1), max(int(bottom - top), 1)))
    ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=face)
    return np.asarray(canvas.crop(canvas.getbbox()))  # the font's box counts white space beside the ink


@functools.cache
def _ordered_points() -> list[int]:
    counts: dict[int, int] = {}
    for font in FONTS:
        for point in _points_of(font):
            counts[point] = counts.get(point, 0) + (unicodedata.category(chr(point))[0] in _CATEGORIES)
    shared = [point for point, count in counts.items() if count >= _FEWEST_FONTS and point not in _BLANK]
    return sorted(shared, key=lambda point: (int(counter_key(_ORDER, point)), point))


@functools.cache
def _repeats(size: int) -> frozenset[tuple[int, str]]:
    """Images that equal an earlier one, those of the training split coming first."""
    seen: set[bytes] = set()
    found = set()
    for split in ("train", "held_out"):
        part = glyphs(split, size=size)
        for entry, image in zip(part.entries, part.images.numpy(), strict=True):
            content = hashlib.sha256(image.tobytes()).digest()
            if content in seen:
                found.add(entry)
            seen.add(content)
    return frozenset(found)


def _is_held_out(point: int) -> bool:
    return int(counter_key(_SPLIT, point)) / 2**64 < _HELD_OUT


def _drawn(point: int, font: str, size: int) -> NDArray[np.uint8]:
    em, room = round(size * _EM), size - 2 * _MARGIN
    ink = drawn_at(point, font, em)
    while max(ink.shape) > room:
        em = min(em - 1, em * room // max(ink.shape))
        ink = drawn_at(point, font, em)
    top, left = (size - ink.shape[0]) // 2, (size - ink.shape[1]) // 2
    image = np.zeros((size, size), np.uint8)
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return image


@functools.cache
def labelled(point: int, font: str) -> Mapping[str, str]:
    """The labels of one image."""
    from fontTools import unicodedata as ranges  # matplotlib brings it; Python's own knows no blocks and no scripts

    character = chr(point)
    script = ranges.script_name(ranges.script(character))
    values = (f"U+{point:04X}", character, unicodedata.name(character), unicodedata.category(character))
    return dict(zip(LABELS, (*values, ranges.block(character), script, font), strict=True))


def _font_file(font: str) -> Path:
    found = importlib.util.find_spec("matplotlib")  # found, not imported: only its files are needed
    if found is None or found.origin is None:
        raise ImportError("glyphs are drawn with the fonts of matplotlib, which is not installed: pip install seaborn")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{font}.ttf"


@functools.cache
def _font_hash(font: str) -> str:
    return hashlib.sha256(_font_file(font).read_bytes()).hexdigest()


@functools.cache
def _points_of(font: str) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(_font_file(font), lazy=True) as file:
        return frozenset(file.getBestCmap())


@functools.lru_cache(256)
def _face(font: str, em: int) -> Any:
    from PIL import ImageFont

    # Basic layout: raqm, where it is installed, would move marks.
    return ImageFont.truetype(_font_file(font), em, layout_engine=ImageFont.Layout.BASIC)
