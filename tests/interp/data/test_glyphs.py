import collections
import itertools
import unicodedata
from typing import Any

import numpy as np
import pytest
import torch

from interp.data.glyphs import FONTS, drawn_at, glyphs


@pytest.fixture(scope="module")
def everything() -> Any:
    return glyphs()


def test_the_rule_gives_its_counts(everything: Any) -> None:
    """4,209 code points and 31,333 images, less the two that are blank."""
    points = collections.Counter(everything.labels("codepoint"))
    assert (len(points), len(everything)) == (4209 - 2, 31333 - 14)
    assert min(points.values()) == 4
    assert set(everything.labels("font")) == set(FONTS)
    assert {category[0] for category in everything.labels("category")} == set("LNSP")


def test_labels_are_those_of_the_character(everything: Any) -> None:
    row = everything[everything.labels("character").index("A")]
    image = row.pop("image")
    assert (image.shape, image.dtype) == ((32, 32), np.uint8)
    assert row == {
        "codepoint": "U+0041",
        "character": "A",
        "name": "LATIN CAPITAL LETTER A",
        "category": "Lu",
        "block": "Basic Latin",
        "script": "Latin",
        "font": "DejaVuSans",
    }
    for row in everything[::997]:
        assert row["name"] == unicodedata.name(chr(int(row["codepoint"].removeprefix("U+"), 16)))
    with pytest.raises(ValueError, match="name is 'colour', but glyphs have the labels codepoint, character"):
        everything.labels("colour")


def test_no_code_point_is_in_both_splits(everything: Any) -> None:
    train, held_out = (set(glyphs(split).labels("codepoint")) for split in ("train", "held_out"))
    assert not train & held_out
    assert train | held_out == set(everything.labels("codepoint"))
    assert 0.18 < len(held_out) / len(train | held_out) < 0.22


def test_a_prefix_is_a_fair_sample_with_the_fonts_side_by_side(everything: Any) -> None:
    whole, part = (collections.Counter(rows.labels("category")) for rows in (everything, everything[:2000]))
    for category in ("Lu", "Ll", "So", "Sm"):
        assert part[category] / 2000 == pytest.approx(whole[category] / len(everything), abs=0.04)
    points = everything.labels("codepoint")
    runs = 1 + sum(a != b for a, b in itertools.pairwise(points))
    assert runs == len(set(points))


def test_every_image_has_all_its_ink_in_its_middle(everything: Any) -> None:
    """Light on dark, centred, and as much ink as on a canvas where nothing could be cut."""
    from PIL import Image, ImageDraw, ImageFont

    from interp.data import glyphs as module

    rows = everything[::41]
    images = rows.images.int()
    assert (images.amax((1, 2)) > 60).all()
    assert images.float().mean() < 100
    for axis in (1, 2):
        ink = images.sum(axis) > 0
        before, after = ink.int().argmax(1), ink.flip(1).int().argmax(1)
        assert (torch.minimum(before, after) >= 1).all()
        assert (before - after).abs().max() <= 1
    full = 0
    for row, image in zip(rows, images, strict=True):
        face = ImageFont.truetype(module._font_file(row["font"]), 24, layout_engine=ImageFont.Layout.BASIC)
        canvas = Image.new("L", (256, 256))
        ImageDraw.Draw(canvas).text((128, 128), row["character"], fill=255, font=face)
        ink = drawn_at(ord(row["character"]), row["font"], 24)
        assert ink.sum(dtype=np.int64) == np.asarray(canvas).sum(dtype=np.int64)
        if max(ink.shape) <= 30:
            full += 1
            assert int(image.sum()) == ink.sum(dtype=np.int64)
    assert full > 0.9 * len(rows)


def test_one_image_alone_and_a_slice_equal_the_whole(everything: Any) -> None:
    part = glyphs()[100:130]
    alone = [row["image"] for row in part]
    assert all(np.array_equal(a, b) for a, b in zip(alone, part.images.numpy(), strict=True))
    assert np.array_equal(part[7]["image"], everything[107]["image"])
    assert part._fingerprint == everything[100:130]._fingerprint != everything._fingerprint
    assert glyphs(size=16)[:5]._fingerprint != everything[:5]._fingerprint
    assert glyphs(size=16)[:5].images.shape == (5, 16, 16)


def test_arguments_are_checked() -> None:
    with pytest.raises(Exception, match="'dev'"):  # By the shape checker when it is on, by us when it is off.
        glyphs("dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size is 8, but a glyph needs at least 9"):
        glyphs(size=8)


def test_distinct_glyphs_repeat_nothing_of_either_split() -> None:
    train, held_out = (glyphs(split, distinct=True) for split in ("train", "held_out"))  # type: ignore[arg-type]
    contents = [image.tobytes() for part in (train, held_out) for image in part.images.numpy()]
    assert len(set(contents)) == len(contents) == len({image.tobytes() for image in glyphs().images.numpy()})
    assert len(train) + len(held_out) < len(glyphs()) and train._fingerprint != glyphs("train")._fingerprint
