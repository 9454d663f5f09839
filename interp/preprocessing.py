"""From a picture to what a vision model is given: resize, crop, scale, normalise, as its authors did."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from interp.pictures import opened, pixels_of
from interp.preprocessing_configs import INTERPOLATIONS, from_hugging_face
from interp.types import JSON

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Fitted:
    """A picture of the model's size, before scaling: what the model sees.

    Args:
        pixels: Its pixels.
    """

    pixels: UInt8[Tensor, "h w c"]

    def thumbnail(self, side: int) -> UInt8[Tensor, "h w c"]:
        """The same picture, shrunk where it has more than `side` pixels a side."""
        h, w = self.pixels.shape[:2]
        if max(h, w) <= side:
            return self.pixels
        factor = side / max(h, w)
        small = opened(self.pixels.numpy()).resize((max(round(w * factor), 1), max(round(h * factor), 1)))
        return _pixels(small)


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before the model.

    Args:
        size: Height and width of the model's input.
        mode: `RGB`, or `L` for one channel of grey.
        resize: Height and width to resize to, whatever the shape; or one number for the shorter side; None for neither.
        crop: Whether the middle is cut out; where the picture is smaller it is padded with black.
        interpolation: nearest, lanczos, bilinear, bicubic, box or hamming; antialiased.
        rescale: What a pixel's 0 to 255 is multiplied by.
        mean: Taken off after that, one number a channel; empty for nothing.
        std: Divided by after that, one number a channel; empty for nothing.

    Raises:
        ValueError: If `mean` and `std` do not have one number a channel, or a value is out of range.
    """

    size: tuple[int, int]
    mode: Literal["L", "RGB"] = "RGB"
    resize: tuple[int, int] | int | None = None
    crop: bool = False
    interpolation: str = "bilinear"
    rescale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}, but a picture has at least one pixel a side: give (height, width).")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}, but it is one of {', '.join(INTERPOLATIONS)}.")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, self.channels):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but mode {self.mode} has {self.channels} channels: "
                    "give one number a channel, or none."
                )
        if 0 in self.std:
            raise ValueError(f"std is {self.std}, but pixels are divided by it: give numbers above 0.")

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return 3 if self.mode == "RGB" else 1

    def to_json(self) -> JSON:
        """Plain values, read back by `from_json`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: JSON) -> "Preprocessing":
        """Inverse of `to_json`."""
        plain: JSON = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Read the content of a Hugging Face `preprocessor_config.json`.

        Equal to its processors that run on Pillow, to the bit. Those on torchvision alone (DINOv3's scales before it
        resizes) round elsewhere, by up to half of one of 255 levels.

        Raises:
            ValueError: If it leaves something open, or asks for a step that is not among these.
        """
        return cls(**from_hugging_face(config))

    def fitted(self, image: Any) -> Fitted:
        """Bring one picture, in any form that `interp.pictures.opened` takes, to the model's size.

        Raises:
            ValueError: If it cannot be read, or has another size and is neither resized nor cropped.
        """
        shape = self.size if self.mode == "L" else (*self.size, 3)
        if isinstance(image, np.ndarray | Tensor) and self._resized_to(self.size) == self.size:
            pixels = pixels_of(image)
            if pixels.shape == shape:  # as the model takes it: Pillow would give the same, at many times the cost
                return Fitted(torch.from_numpy(pixels.reshape(*self.size, self.channels).copy()))
        picture = opened(image)
        if picture.mode != self.mode:
            picture = picture.convert(self.mode)
        h, w = self._resized_to((picture.height, picture.width))
        if (w, h) != picture.size:
            picture = picture.resize((w, h), resample=INTERPOLATIONS.index(self.interpolation))
        left, top = (w - self.size[1]) // 2, (h - self.size[0]) // 2
        if (h, w) != self.size and not self.crop:
            raise ValueError(
                f"the image is {h} x {w}, but the model takes {self.size[0]} x {self.size[1]}, and its preprocessing "
                "neither resizes to that nor crops: resize it"
            )
        if (h, w) != self.size:
            picture = picture.crop((left, top, left + self.size[1], top + self.size[0]))
        return Fitted(_pixels(picture))

    def __call__(self, images: Sequence[Any]) -> Float[Tensor, "b c h w"]:
        """One batch for the model, in float32 on the CPU.

        Args:
            images: Pictures in any form, each of a form of its own; or already `Fitted`.

        Raises:
            ValueError: If one cannot be read, or one is given without a list.
        """
        shape: tuple[int, ...] = getattr(images, "shape", ())
        if isinstance(images, str | bytes | Path | Mapping) or (len(shape) == 3 and shape[-1] in (3, 4)):
            raise ValueError("images is one picture, but a batch is a list of them: give [picture].")
        views = [image if isinstance(image, Fitted) else self.fitted(image) for image in images]
        if not views:
            raise ValueError("images is empty, but a batch has at least one: give a list of pictures.")
        pixels, levels = np.stack([view.pixels.numpy() for view in views]), self._levels()
        return torch.from_numpy(np.stack([levels[:, c].take(pixels[..., c]) for c in range(self.channels)], axis=1))

    def _levels(self) -> Float[np.ndarray, "256 c"]:
        """What each of a channel's 256 values becomes: looked up, it costs a quarter of computing it."""
        # float64 for the product alone, as Hugging Face's processors do: the results are equal to the bit.
        levels = np.repeat((np.arange(256) * self.rescale).astype(np.float32)[:, None], self.channels, axis=1)
        if self.mean:
            levels -= np.array(self.mean, np.float32)
        if self.std:
            levels /= np.array(self.std, np.float32)
        return levels

    def _resized_to(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width after the resize of a picture of this height and width."""
        if not isinstance(self.resize, int):
            return self.resize or size
        short, long = self.resize, int(self.resize * max(size) / min(size))
        return (long, short) if size[1] <= size[0] else (short, long)


def _pixels(picture: "Image") -> UInt8[Tensor, "h w c"]:
    pixels = torch.from_numpy(np.array(picture))
    return pixels if pixels.ndim == 3 else pixels.unsqueeze(-1)
