import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from interp.pictures import opened, with_bytes
from interp.preprocessing import Fitted, Preprocessing

SHAPES = [(40, 40), (37, 61), (64, 33), (20, 90), (8, 7)]


def _pictures(seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in SHAPES]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("vit.ViT", {}),
        ("vit.ViT", {"size": {"height": 24, "width": 30}, "resample": 3}),
        ("vit.ViT", {"size": {"height": 24, "width": 30}, "do_normalize": False, "resample": 0}),
        ("vit.ViT", {"size": {"height": 24, "width": 30}, "do_rescale": False}),
        ("clip.CLIP", {}),
        ("clip.CLIP", {"size": {"shortest_edge": 33}, "crop_size": {"height": 32, "width": 32}, "resample": 1}),
        ("clip.CLIP", {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 40}}),  # padded
        ("clip.CLIP", {"do_resize": False, "crop_size": {"height": 30, "width": 35}}),
        ("bit.Bit", {"size": {"shortest_edge": 48}, "crop_size": {"height": 41, "width": 40}}),
        ("siglip.Siglip", {"size": {"height": 32, "width": 32}}),
        ("deit.DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("beit.Beit", {"size": {"height": 32, "width": 32}}),
        ("convnext.ConvNext", {"size": {"shortest_edge": 32}}),
        ("convnext.ConvNext", {"size": {"shortest_edge": 384}}),
    ],
)
def test_pixels_are_those_of_hugging_face(kind: str, changes: dict[str, Any], needs: Any) -> None:
    """Bit for bit, for pictures of several shapes, by what the processor itself saves."""
    needs("transformers")
    family, _, name = kind.partition(".")
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    processor = getattr(module, f"{name}ImageProcessorPil")(**changes)
    ours = Preprocessing.from_config(json.loads(processor.to_json_string()))
    theirs = processor(_pictures(), return_tensors="pt")["pixel_values"]
    found = ours(_pictures())
    assert found.dtype == torch.float32
    assert found.shape[2:] == ours.size
    assert torch.equal(found, theirs.float())
    assert Preprocessing.from_json(json.loads(json.dumps(ours.to_json()))) == ours


def test_old_configs_mean_what_their_class_means() -> None:
    """As published with DINO, DINOv2 and CLIP."""
    norm = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_resize": True}
    dino = {**norm, "feature_extractor_type": "ViTFeatureExtractor", "resample": 2, "size": 224}
    assert Preprocessing.from_config(dino) == Preprocessing(
        (224, 224), resize=(224, 224), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    clip = {**norm, "feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224}
    assert Preprocessing.from_config({**clip, "do_center_crop": True}) == Preprocessing(
        (224, 224), resize=224, crop=True, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    grey = {"image_processor_type": "ViTImageProcessor", "size": 32, "image_mean": [0.1], "image_std": [0.2]}
    assert Preprocessing.from_config(grey).mode == "L"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_pad": True}, r"asks for \['do_pad'\], which is not supported"),
        ({"image_processor_type": "NewImageProcessor"}, r"\(NewImageProcessor\) does not say image_mean"),
        ({"do_normalize": False, "image_processor_type": "New"}, "does not say resample"),
        ({"do_normalize": False, "resample": 2, "size": 3}, "does not say default_to_square"),
        ({"do_normalize": False, "resample": 2, "size": {"longest_edge": 3}}, "a height and width or a shortest edge"),
        ({"do_normalize": False, "resample": 2, "size": {"shortest_edge": 3}}, "leaves the model's input open"),
    ],
)
def test_a_config_that_leaves_something_open_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_config(config)


def _forms(picture: Image.Image, folder: Path) -> dict[str, Any]:
    array, data = np.array(picture), io.BytesIO()
    picture.save(data, "png")
    (folder / "a.png").write_bytes(data.getvalue())
    return {
        "array": array,
        "channels first": np.moveaxis(array, -1, 0),
        "tensor": torch.from_numpy(array).permute(2, 0, 1),
        "channels last": torch.from_numpy(array),
        "bytes": data.getvalue(),
        "path": folder / "a.png",
        "text": str(folder / "a.png"),
        "undecoded": {"bytes": data.getvalue(), "path": None},
        "undecoded file": {"bytes": None, "path": str(folder / "a.png")},
        "kept": with_bytes(str(folder / "a.png")),
    }


def test_every_form_of_a_picture_is_the_same_picture(tmp_path: Path) -> None:
    picture, preprocessing = _pictures()[1], Preprocessing((16, 20), resize=16, crop=True)
    expected = preprocessing([picture])
    for name, form in _forms(picture, tmp_path).items():
        assert torch.equal(preprocessing([form]), expected), name
    grey = np.array(picture.convert("L"))
    for form in (grey, grey[..., None], torch.from_numpy(grey)[None]):
        assert torch.equal(preprocessing([form]), preprocessing([Image.fromarray(grey).convert("RGB")]))
    both = np.zeros((3, 5, 4), np.uint8)  # channels at either end: last in arrays, first in tensors
    assert opened(both).size == (5, 3)
    assert opened(torch.from_numpy(both)).size == (4, 5)
    assert with_bytes(str(tmp_path / "a.png"))["path"] == "a.png"
    fitted = preprocessing.fitted(picture)
    assert torch.equal(preprocessing([fitted]), expected)
    assert torch.equal(fitted.pixels.permute(2, 0, 1) / 255, expected[0])


@pytest.mark.parametrize("resize", [None, 8, (8, 8)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_array_of_the_models_size_is_what_pillow_makes_of_it(mode: str, channels: int, resize: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, channels), np.uint8)
    ours = Preprocessing(size=(8, 8), mode=mode, resize=resize)  # type: ignore[arg-type]
    expected = ours.fitted(Image.fromarray(pixels[..., 0] if channels == 1 else pixels)).pixels
    for form in (pixels, torch.from_numpy(pixels), torch.from_numpy(pixels).movedim(-1, 0)):
        assert torch.equal(ours.fitted(form).pixels, expected)
    found = ours.fitted(pixels).pixels.clone()
    pixels[:] = 0
    assert torch.equal(found, expected)


def test_a_picture_is_turned_as_its_camera_says() -> None:
    picture, data = _pictures()[1], io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(data, "png", exif=exif)
    assert np.array_equal(np.array(opened(data.getvalue())), np.rot90(np.array(picture), -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"no picture", "^no image of a format that Pillow knows$"),
        ({"bytes": None, "path": "/nowhere/a.png"}, "^there is no such file$"),
        (np.zeros((4, 4)), "the image holds float64, but 0 to 255 as uint8 is needed"),
        (torch.zeros(3, 4, 4), "the image holds float32"),
        (np.zeros((4, 4, 4, 4), np.uint8), r"the image has shape \(4, 4, 4, 4\)"),
        (None, "a NoneType is no picture: give a Pillow image"),
        (np.zeros((0, 5), np.uint8), "the image has 0 x 5 pixels"),
        (Image.fromarray(np.full((4, 4), 60000, np.uint16)), "the image is of mode I;16, but 8 bits"),
    ],
)
def test_what_cannot_be_read_says_why(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(image)


def test_a_file_that_was_cut_says_so() -> None:
    data = io.BytesIO()
    _pictures()[0].save(data, "png")
    for length in (40, 100, 2000):
        with pytest.raises(ValueError) as caught:
            opened(data.getvalue()[:length])
        assert "0x" not in str(caught.value)
    with pytest.raises(ValueError, match="truncated"):
        opened(data.getvalue()[:2000])


def test_thumbnails_keep_their_shape() -> None:
    pixels = torch.zeros(40, 80, 3, dtype=torch.uint8)
    pixels[:, 40:] = 200
    small = Fitted(pixels).thumbnail(20)
    assert small.shape == (10, 20, 3)
    assert small[:, :9].max() == 0
    assert small[:, 11:].min() == 200
    assert Fitted(pixels).thumbnail(80) is pixels
    assert Fitted(pixels[..., :1]).thumbnail(20).shape == (10, 20, 1)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"mean is \(0.5,\), but mode RGB has 3 channels"):
        Preprocessing((4, 4), mean=(0.5,))
    with pytest.raises(ValueError, match="interpolation is 'cubic', but it is one of nearest"):
        Preprocessing((4, 4), interpolation="cubic")
    with pytest.raises(ValueError, match="std is .* but pixels are divided by it"):
        Preprocessing((4, 4), std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="size is"):
        Preprocessing((0, 4))
    with pytest.raises(ValueError, match="the image is 40 x 40, but the model takes 4 x 4"):
        Preprocessing((4, 4)).fitted(_pictures()[0])
    with pytest.raises(ValueError, match="images is empty"):
        Preprocessing((4, 4))([])
    for one in ("a.png", b"data"):
        with pytest.raises(ValueError, match=r"images is one picture.*give \[picture\]"):
            Preprocessing((4, 4), resize=4, crop=True)(one)


def test_what_a_config_leaves_null_it_does_not_say() -> None:
    saved = {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 4, "width": 4}, "do_resize": True}
    nulls = dict.fromkeys(["resample", "rescale_factor", "crop_size", "do_normalize", "image_mean"])
    assert Preprocessing.from_config(saved | nulls) == Preprocessing((4, 4), resize=(4, 4))
    with pytest.raises(ValueError, match="does not say image_mean"):
        Preprocessing.from_config(saved | nulls | {"do_normalize": True})
