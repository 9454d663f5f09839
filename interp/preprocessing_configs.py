"""Hugging Face's `preprocessor_config.json`, whose meaning depends on the class it names."""

from collections.abc import Mapping
from typing import Any

from interp.types import JSON

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
# Of the classes whose steps are those of `Preprocessing`: whether one number for `size` means a square (else the
# shorter side), and the interpolation where none is named.
_CLASSES = {
    "ViT": (True, "bilinear"),
    "DINOv3ViT": (True, "bilinear"),
    "DeiT": (True, "bicubic"),
    "Beit": (True, "bicubic"),
    "Siglip": (False, "bicubic"),
    "CLIP": (False, "bicubic"),
    "Bit": (False, "bicubic"),
    "ConvNext": (False, "bicubic"),
}
_SUFFIXES = ("Pil", "Fast", "ImageProcessor", "FeatureExtractor")
_OTHER_STEPS = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "rescale_offset")
_WHOLE = 384  # from here on ConvNeXt is shown the whole picture, warped to a square


def from_hugging_face(config: Mapping[str, Any]) -> JSON:
    """The arguments of `Preprocessing` that a config stands for.

    Raises:
        ValueError: If it leaves something open, or asks for a step that `Preprocessing` has not.
    """
    other = [name for name in _OTHER_STEPS if config.get(name)]
    if other:
        raise ValueError(f"the image processor asks for {other}, which is not supported: give a Preprocessing.")
    mean, std = (_of_channels(config, name) for name in ("image_mean", "image_std"))
    found: JSON = {
        "mode": "L" if len(mean) == 1 else "RGB",
        "interpolation": _interpolation(config),
        "rescale": float(config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else 1.0,
        "mean": mean,
        "std": std,
    }
    resize = _size(config, "size") if config.get("do_resize", True) else None
    if _stem(config) == "ConvNext" and isinstance(resize, int):
        return found | _convnext(resize, float(config.get("crop_pct") or 224 / 256))
    crop = _size(config, "crop_size") if config.get("do_center_crop", False) else None
    size = (crop, crop) if isinstance(crop, int) else crop or resize
    if not isinstance(size, tuple):
        raise ValueError(
            f"the image processor's size is {config.get('size')} without a crop, which leaves the model's input open: "
            "give a Preprocessing(size=(height, width), ...)."
        )
    return found | {"size": size, "resize": resize, "crop": crop is not None}


def _convnext(side: int, crop_pct: float) -> JSON:
    resize = (side, side) if side >= _WHOLE else int(side / crop_pct)
    return {"size": (side, side), "resize": resize, "crop": side < _WHOLE}


def _stem(config: Mapping[str, Any]) -> str:
    stem = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def _interpolation(config: Mapping[str, Any]) -> str:
    if config.get("resample") is not None:
        return INTERPOLATIONS[int(config["resample"])]
    if _stem(config) in _CLASSES:
        return _CLASSES[_stem(config)][1]
    if not config.get("do_resize", True):
        return "bilinear"
    raise ValueError(_open(config, "resample"))


def _size(config: Mapping[str, Any], name: str) -> tuple[int, int] | int:
    size = config.get(name)
    if isinstance(size, int):
        if name == "crop_size":
            return size
        square = config.get("default_to_square", _CLASSES.get(_stem(config), (None, ""))[0])
        if square is None:
            raise ValueError(_open(config, "default_to_square"))
        return (size, size) if square else size
    if isinstance(size, Mapping) and {*size} == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    if isinstance(size, Mapping) and {*size} == {"shortest_edge"}:
        return int(size["shortest_edge"])
    raise ValueError(
        f"the image processor's {name} is {size}, but a height and width or a shortest edge is needed: "
        "give a Preprocessing."
    )


def _of_channels(config: Mapping[str, Any], name: str) -> tuple[float, ...]:
    if not config.get("do_normalize", True):
        return ()
    if config.get(name) is None:
        raise ValueError(_open(config, name))
    return tuple(float(value) for value in config[name])


def _open(config: Mapping[str, Any], name: str) -> str:
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    return f"the image processor ({kind}) does not say {name}: add it to its config, or give a Preprocessing."
