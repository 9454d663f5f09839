"""A vision model and pictures that need no download; also run by the processes that the kill tests start."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from interp.models.torch_module import TorchModel
from interp.preprocessing import Preprocessing
from interp.types import Geometry, Inputs


class _Network(nn.Module):
    """A patch embedding behind one class token, then two residual blocks that see the mean of all positions."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, d, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, d))
        self.blocks = nn.ModuleList(nn.Linear(d, d) for _ in range(2))
        self.head = nn.Linear(d, 3)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = self.embed(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(patches), -1, -1), patches], 1)
        for block in self.blocks:
            x = x + block(x + x.mean(1, keepdim=True)).tanh()
        return self.head(x[:, 0])


class TinyVision(TorchModel):
    """A 3 x 5 grid of patches after a class token, seeded; `blocks.0`, `blocks.1`, and `embed` without the token."""

    def __init__(self, *, d: int = 8, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _Network(d)
        grid = {"grid": (3, 5), "stride": (4, 4), "patch": (4, 4), "input_size": (12, 20)}
        blocks = {f"blocks.{i}": Geometry("grid", prefix=1, **grid) for i in range(2)}
        super().__init__(network, name="tiny-vision", geometry={"embed": Geometry("grid", **grid), **blocks})
        self.preprocessing = Preprocessing((12, 20), mode="L", resize=12, crop=True, mean=(0.4,), std=(0.3,))

    def collate(self, images: list[Any]) -> Inputs:
        return Inputs({"pixel_values": self.preprocessing(images)})


def pictures(n: int, *, seed: int = 0, corrupt: bool = True) -> list[dict[str, Any]]:
    """Items with the bytes of a file of varying shape and a `class`; every seventh cannot be read."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        h, w = rng.integers(10, 40, 2)
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).save(data, "png")
        kept = data.getvalue()[: 60 if corrupt and number % 7 == 3 else None]
        rows.append({"image": {"bytes": kept, "path": f"{number}.png"}, "class": f"class {number % 3}"})
    return rows
