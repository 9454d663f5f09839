"""Pictures in any form -> Pillow images; the one place that imports Pillow for reading."""

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

FORMS = "a Pillow image, an array or tensor of uint8, a path, bytes, or a mapping with `bytes` or `path`"
_DEEP = ("I", "F")  # 16 bits a channel and more: Pillow would cut them to 8


def opened(image: Any) -> "Image":
    """Any form of picture as a Pillow image: loaded whole, and from a file turned as its camera says.

    Args:
        image: A Pillow image; an array or tensor of uint8, `[h, w]` or with 1, 3 or 4 channels last or first; a path;
            the bytes of a file; or a mapping with `bytes` or `path`, as Hugging Face datasets give without decoding.

    Raises:
        ValueError: If it cannot be read; the message is the same on every machine.
    """
    from PIL import Image

    is_array = isinstance(image, np.ndarray | Tensor)
    found = Image.fromarray(pixels_of(image)) if is_array else _loaded(image)
    if found.mode.startswith(_DEEP):
        raise ValueError(f"the image is of mode {found.mode}, but 8 bits a channel are needed: convert it")
    if not min(found.size):
        raise ValueError(f"the image has {found.height} x {found.width} pixels, so there is nothing to see")
    return found


def hashable(image: "Image") -> list[Any]:
    """What a Pillow image shows, with the palette that its numbers mean; of one that cannot be read, why."""
    try:
        return [image.mode, bytes(_loaded(image).getpalette() or ()), np.asarray(image)]
    except ValueError as error:
        return [image.mode, list(image.size), str(error)]


def with_bytes(image: Any) -> Any:
    """A picture without a path that holds on this machine only: its file's `bytes`, and its name as `path`.

    What is no file keeps no bytes, and `opened` says so.
    """
    path = image.get("path") if isinstance(image, Mapping) else image
    data = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(path, str | Path):
        return image
    if data is None and os.path.isfile(path):  # noqa: PTH113  # unlike Path's, it takes names of any length
        data = Path(path).read_bytes()
    return {"bytes": data, "path": Path(path).name if Path(path).is_absolute() else str(path)}


def name_of(image: Any) -> str:
    """The file of a picture, where it has one."""
    path = image.get("path") if isinstance(image, Mapping) else image
    return str(path) if isinstance(path, str | Path) else ""


def _loaded(image: Any) -> "Image":
    if isinstance(image, Mapping):
        image = image.get("path") if image.get("bytes") is None else image["bytes"]
    try:
        return _decoded(image)
    except MemoryError:
        raise
    except Exception as error:  # Decoders raise what they like: OSError, SyntaxError, struct.error, zlib.error, ...
        raise ValueError(_reason(error)) from error


def _decoded(image: Any) -> "Image":
    from PIL import Image, ImageOps

    if isinstance(image, Image.Image):
        image.load()
        return image
    if isinstance(image, bytes):
        image = io.BytesIO(image)
    elif isinstance(image, str | Path):
        if not Path(image).is_file():
            raise ValueError("there is no such file")
    else:
        raise ValueError(f"a {type(image).__name__} is no picture: give {FORMS}")
    with Image.open(image) as file:
        file.load()
        return ImageOps.exif_transpose(file)


def pixels_of(image: np.ndarray | Tensor) -> np.ndarray:
    """uint8 `[h, w]` or `[h, w, c]`; where both ends could be channels, an array's are last and a tensor's first.

    Raises:
        ValueError: If it holds something else.
    """
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if pixels.dtype != np.uint8:
        raise ValueError(f"the image holds {pixels.dtype}, but 0 to 255 as uint8 is needed: scale and convert it")
    ends = (0, -1) if isinstance(image, Tensor) else (-1, 0)
    axis = next((end for end in ends if pixels.ndim == 3 and pixels.shape[end] in (1, 3, 4)), None)
    if pixels.ndim != 2 and axis is None:
        raise ValueError(f"the image has shape {pixels.shape}, but [h, w] or 1, 3 or 4 channels are needed")
    if axis is not None:
        pixels = np.moveaxis(pixels, axis, -1)
    return np.ascontiguousarray(pixels[..., 0] if axis is not None and pixels.shape[-1] == 1 else pixels)


def _reason(error: Exception) -> str:
    """The cause without addresses in memory, so that equal harvests say the same."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image of a format that Pillow knows"
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "the file", str(error))
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"
