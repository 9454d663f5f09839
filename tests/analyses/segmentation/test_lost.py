from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from analyses.segmentation.lost import LOST

Planted = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def _slow(acts: torch.Tensor, patches: int) -> tuple[Any, Any, float]:
    """As the paper has it, position by position."""
    rows = acts.reshape(-1, acts.shape[-1]).numpy()
    n = len(rows)
    degrees = [sum(rows[p] @ rows[q] > 0 for q in range(n) if q != p) for p in range(n)]
    seed = min(range(n), key=lambda p: degrees[p])
    lowest = sorted(range(n), key=lambda p: degrees[p])[:patches]
    joined = [p for p in lowest if rows[p] @ rows[seed] > 0]
    summed = np.array([sum(rows[q] @ rows[p] for p in joined) for q in range(n)]).reshape(acts.shape[:-1])
    labels, _ = ndimage.label(summed > 0)
    return labels == labels.ravel()[seed], summed, degrees[seed] / (n - 1)


@pytest.mark.parametrize("patches", [1, 7, 100])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_paper(planted: Planted, seed: int, patches: int) -> None:
    acts, _ = planted((2, 6, 3, 8), noise=1.5, seed=seed)
    found, (mask, summed, degree) = LOST(patches)(acts), _slow(acts[0], patches)
    assert np.array_equal(found.masks[0, 0].numpy(), mask)
    np.testing.assert_allclose(found.saliency[0, 0].numpy(), summed, atol=1e-10)
    assert float(found.details["degree"]) == pytest.approx(degree)


def test_a_planted_rectangle_is_found_whole(planted: Planted) -> None:
    acts, masks = planted((2, 6, 3, 8), noise=0.3)
    acts = acts - acts.mean((1, 2), keepdim=True)  # so that the two directions are opposed
    found = LOST()(acts)
    assert torch.equal(found.masks, masks) and found.boxes.tolist() == [[[3, 2, 8, 6]]]


def test_the_scale_of_the_activations_changes_no_mask(planted: Planted) -> None:
    acts, _ = planted((2, 6, 3, 8), noise=1.5)
    here, there = LOST()(acts), LOST()(3 * acts)
    assert torch.equal(here.masks, there.masks)
    torch.testing.assert_close(there.saliency, 9 * here.saliency)


def test_positions_of_one_degree_have_no_seed() -> None:
    halves = torch.tensor([1.0, -1.0]).repeat_interleave(6).view(1, 4, 3, 1)
    assert not LOST()(halves).found.any()
    assert not LOST()(torch.zeros(1, 4, 3, 2)).found.any()


def test_no_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="patches is 0, but the seed is one of them"):
        LOST(0)
