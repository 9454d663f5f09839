"""Grids of vectors with rectangles planted in them."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture(scope="session")
def planted() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """From rectangles (top, bottom, left, right) to vectors of a grid and the masks: each rectangle and the ground
    have a direction of their own, of length 1, under noise of about the length asked."""

    def plant(
        *rectangles: tuple[int, int, int, int], grid: tuple[int, int] = (9, 11), noise: float = 0.3, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        masks = torch.zeros(len(rectangles), *grid, dtype=torch.bool)
        acts = torch.zeros(*grid, 12, dtype=torch.float64)
        acts[..., 0] = 1
        for i, (top, bottom, left, right) in enumerate(rectangles):
            masks[i, top:bottom, left:right] = True
            acts[masks[i]] = torch.eye(12, dtype=torch.float64)[i + 1]
        return (acts + noise * torch.randn(acts.shape, generator=draw, dtype=torch.float64) / 12**0.5)[None], masks[
            None
        ]

    return plant
