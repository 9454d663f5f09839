"""A ResNet-18 in plain torch with given weights, for both sides of `benchmarks/maps.py`."""

import numpy as np
import torch
from torch import nn

LAYERS = ["layer1", "layer2", "layer3", "layer4"]


class Block(nn.Module):
    def __init__(self, d_in: int, d_out: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False), nn.BatchNorm2d(d_out)
        self.second, self.norm2 = nn.Conv2d(d_out, d_out, 3, 1, 1, bias=False), nn.BatchNorm2d(d_out)
        self.skip = nn.Conv2d(d_in, d_out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.norm2(self.second(self.norm1(self.first(x)).relu())) + self.skip(x)).relu()


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.pool = (
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.MaxPool2d(3, 2, 1),
        )
        for i, (d_in, d_out) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)]):
            blocks = nn.Sequential(Block(d_in, d_out, 1 if i == 0 else 2), Block(d_out, d_out, 1))
            setattr(self, LAYERS[i], blocks)
        self.head = nn.Linear(512, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.norm(self.stem(x)).relu())
        for layer in LAYERS:
            x = getattr(self, layer)(x)
        return self.head(x.mean((2, 3)))


def resnet() -> ResNet18:
    network, draw = ResNet18(), np.random.RandomState(0)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
        elif parameter.ndim > 1:
            noise = draw.standard_normal(tuple(parameter.shape)) * (2 / parameter[0].numel()) ** 0.5
            parameter.data = torch.from_numpy(noise).float()
    return network.eval()


def images(n: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(1).standard_normal((n, 3, side, side))).float()


def classes(n: int) -> list[int]:
    return [7 * i % 100 for i in range(n)]


def activations(n: int, d: int, side: int) -> torch.Tensor:
    """Maps like a network's: a spot that most channels share, and noise, cut off below 0."""
    draw = np.random.RandomState(2)
    spot = draw.rand(n, 1, side, side) * draw.rand(n, d, 1, 1)
    return torch.from_numpy(np.maximum(draw.standard_normal((n, d, side, side)), 0) + spot).float()
