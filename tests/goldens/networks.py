"""Two small networks with given weights, in plain torch: what foreign libraries and ours both explain."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    def __init__(self, d_in: int, d_out: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False), nn.BatchNorm2d(d_out)
        self.second, self.norm2 = nn.Conv2d(d_out, d_out, 3, 1, 1, bias=False), nn.BatchNorm2d(d_out)
        self.skip = nn.Conv2d(d_in, d_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.norm2(self.second(self.norm1(self.first(x)).relu()))
        return (inside + self.skip(x)).relu()


class ResNet(nn.Module):
    """Two stages over 16 x 16 pixels, maps of 16 x 16 and 8 x 8, average pooling, five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.head = Residual(3, 6, 1), Residual(6, 10, 2), nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer2(self.layer1(x)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.norm2, self.up, self.down = nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        pattern = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out((pattern @ v).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Two pre-norm blocks over a class token and 4 x 4 patches of 4 x 4 pixels; the head reads the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token, self.places = (
            nn.Conv2d(3, 12, 4, 4),
            nn.Parameter(torch.zeros(1, 1, 12)),
            nn.Parameter(torch.zeros(1, 17, 12)),
        )
        self.blocks, self.norm, self.head = (
            nn.ModuleList([Block(12, 3), Block(12, 3)]),
            nn.LayerNorm(12),
            nn.Linear(12, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.embed(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def given(network: nn.Module, seed: int) -> nn.Module:
    """The network in float64 and eval mode, with weights that no version of torch draws."""
    draw = np.random.RandomState(seed)
    state = network.double().state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            fan = value[0].numel() if value.ndim > 1 else 4
            noise = torch.from_numpy(draw.standard_normal(tuple(value.shape))) * (1.5 / fan**0.5)
            one = ("norm" in name and name.endswith("weight")) or name.endswith("running_var")
            state[name] = 1 + noise.abs() if one else noise
    network.load_state_dict(state)
    return network.eval()


def plain() -> nn.Sequential:
    """Convolutions, batch normalisation with slopes of both signs, pooling and linear layers, one after the other.

    zennit adds the epsilon of batch normalisation twice when it merges it, so it is next to none.
    """
    first = [nn.Conv2d(3, 6, 3, 1, 1), nn.BatchNorm2d(6, 1e-12), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8, 1e-12), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    network = given(nn.Sequential(*first, *second, nn.Linear(32, 10), nn.Tanh(), nn.Linear(10, 5)), 3)
    with torch.no_grad():
        for norm in (network[1], network[5]):
            norm.running_var.abs_().add_(0.5)
    return network


def pixels(n: int = 4) -> torch.Tensor:
    """Inputs of both."""
    return torch.from_numpy(np.random.RandomState(7).standard_normal((n, 3, 16, 16)))


CLASSES = [0, 3, 1, 4]
LAYERS = {"resnet": ["layer1", "layer2"], "vit": ["blocks.0"]}
NETWORKS = {"resnet": lambda: given(ResNet(), 1), "vit": lambda: given(ViT(), 2)}
