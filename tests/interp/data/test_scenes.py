from typing import Any

import numpy as np
import pytest

from interp.data.glyphs import glyphs
from interp.data.scenes import scenes

N = 40


@pytest.fixture(scope="module")
def drawn() -> Any:
    return list(scenes(N, seed=3, size=(64, 80)))


def test_pixels_change_just_where_a_mask_is(drawn: Any) -> None:
    empty = scenes(N, seed=3, size=(64, 80), objects=(0, 0))
    for scene, ground in zip(drawn, empty, strict=True):
        assert ground["mask"].shape == (0, 64, 80)
        assert ground["labels"] == []
        assert np.array_equal(scene["image"] != ground["image"], scene["mask"].any(0))


def test_masks_share_no_pixel_hold_the_bright_ones_and_have_tight_boxes(drawn: Any) -> None:
    for scene in drawn:
        assert (scene["mask"].sum(0) <= 1).all()
        assert (scene["mask"].sum((1, 2)) >= 4).all()
        assert (scene["mask"].any(0) | (scene["image"] <= 110)).all()
        for mask, (left, top, right, bottom) in zip(scene["mask"], scene["boxes"], strict=True):
            assert scene["image"][mask > 0].max() > 120
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            assert (left, top, right, bottom) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_distractors_have_no_label_and_move_no_object(drawn: Any) -> None:
    changed = 0
    for scene, plain in zip(drawn, scenes(N, seed=3, size=(64, 80), distractors=(0, 0)), strict=True):
        assert np.array_equal(scene["mask"], plain["mask"])
        assert scene["labels"] == plain["labels"]
        changed += not np.array_equal(scene["image"], plain["image"])
    assert changed > N // 2


def test_a_scene_is_a_function_of_seed_and_number(drawn: Any) -> None:
    again = scenes(1000, seed=3, size=(64, 80))
    assert np.array_equal(again[N - 1]["image"], drawn[-1]["image"])
    assert not np.array_equal(again[0]["image"], again[1]["image"])
    assert not np.array_equal(scenes(1, seed=4, size=(64, 80))[0]["image"], again[0]["image"])
    assert again[-1]["image"].tobytes() == again[999]["image"].tobytes()
    assert again._fingerprint == scenes(1000, seed=3, size=(64, 80))._fingerprint
    assert again._fingerprint != scenes(1000, seed=4, size=(64, 80))._fingerprint
    with pytest.raises(IndexError, match="scene is 1000"):
        again[1000]


def test_counts_labels_and_splits(drawn: Any) -> None:
    assert {len(scene["labels"]) for scene in drawn} == {1, 2, 3}
    known = set(glyphs("held_out").labels("codepoint"))
    for scene in scenes(20, seed=0, split="held_out", label="script"):
        assert set(scene["codepoints"]) <= known
        assert {len(scene[key]) for key in ("mask", "boxes", "labels", "codepoints", "fonts")} == {len(scene["fonts"])}
    assert "Latin" in {label for scene in scenes(20, seed=0, label="script") for label in scene["labels"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "at least 16 pixels"),
        ({"objects": (3, 1)}, r"objects is \(3, 1\), but it is fewest and most"),
        ({"label": "colour"}, "name is 'colour'"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scenes(3, seed=0, **options)
