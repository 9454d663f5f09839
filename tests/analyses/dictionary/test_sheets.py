import numpy as np
import pytest
import torch
from PIL import Image

from analyses.dictionary.sheets import COLUMNS, SIDE, Sheets, sheet_name, write_sheets


def images(sizes, channels=1):
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (h, w, channels), generator=draw, dtype=torch.uint8) for h, w in sizes]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_where_its_box_says(tmp_path, channels):
    made = images([(32, 32)] * 1100 + [(20, 96), (96, 7), (64, 64)] * 5, channels)
    columns = write_sheets([made[0], None, *made[1:]], tmp_path)
    assert [columns[name][1] for name in COLUMNS] == [-1] * 5
    sheets = Sheets(tmp_path, columns | {"id": np.arange(len(made) + 1) + 10})
    for i, image in enumerate([made[0], None, *made[1:]]):
        if image is not None:
            assert np.array_equal(sheets.image(i + 10).reshape(image.shape), image.numpy())
    assert sheets.files == sorted(tmp_path.glob("*.png")) and len(sheets.files) == 2
    assert all(max(Image.open(sheet).size) <= SIDE for sheet in sheets.files)
    with pytest.raises(ValueError, match=r"item is 11, but thumbnails are of the 1115 items"):
        sheets.image(11)


def test_boxes_do_not_overlap(tmp_path):
    columns = write_sheets(images([(17, 60), (90, 33), (40, 96), (96, 96)] * 40), tmp_path)
    covered = np.zeros((columns["sheet"].max() + 1, SIDE, SIDE), int)
    for sheet, left, top, width, height in zip(*(columns[name] for name in COLUMNS), strict=True):
        covered[sheet, top : top + height, left : left + width] += 1
    assert covered.max() == 1


def test_equal_images_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_sheets(images([(32, 32)] * 40), tmp_path / name)
    assert (tmp_path / "a" / sheet_name(0)).read_bytes() == (tmp_path / "b" / sheet_name(0)).read_bytes()


def test_no_image_no_sheet(tmp_path):
    assert write_sheets([None, None], tmp_path) == {} and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"item 1 has a thumbnail of 8 x 1025, but a sheet is 1024 wide"):
        write_sheets([None, *images([(8, 1025)])], tmp_path)
