from collections.abc import Callable

import pytest
import torch

from interp.models.synthetic import SyntheticWorld
from interp.stores.memory import MemoryStore
from interp.types import Activations, Item, Latents


class Trees:
    """A nonlinear dictionary: the positive parts of rows and of their opposites."""

    signed, trainable, site, labels, provenance, W_enc = False, False, None, {}, {"made": "by hand"}, None

    def __init__(self, d_in: int) -> None:
        self.d_in, self.d_sae = d_in, 2 * d_in
        self.W_dec = torch.cat([torch.eye(d_in), -torch.eye(d_in)])

    def encode(self, x):
        return Latents.from_dense(torch.cat([x, -x], dim=1).relu())

    def decode(self, latents):
        return latents.dense() @ self.W_dec


@pytest.fixture
def both_signs() -> Callable[[int], Trees]:
    return Trees


@pytest.fixture
def store() -> MemoryStore:
    """400 examples of 3 rows of width 5; three kinds about three means, in 40 families of 10 examples."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(400) % 3
    means = torch.tensor([[1.5, 0, 0, 0, 0], [0, 1.5, 0, 0, 0], [0, 0, 0, 0, 0]])
    values = means[kind].repeat_interleave(3, 0) + torch.randn(1200, 5, generator=generator)
    values = values * torch.tensor([1.0, 1.0, 3.0, 1.0, 0.1]) + torch.tensor([0, 0, 50.0, 0, 0])
    items = [Item(labels={"kind": f"kind{i % 3}", "family": f"f{i // 10:02}"}) for i in range(400)]
    return MemoryStore(
        Activations(values, torch.arange(1200) // 3, torch.arange(1200) % 3), items=items, site="blocks.1"
    )


@pytest.fixture
def world() -> SyntheticWorld:
    return SyntheticWorld(n_features=24, d_in=24, mean_l0=3.0, noise=0.02)
