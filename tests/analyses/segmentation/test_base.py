import numpy as np
import pytest
import torch
from scipy import ndimage

from analyses.segmentation.base import Objects, component, foremost
from analyses.segmentation.token_cut import TokenCut


def _masks(shape: tuple[int, ...], seed: int = 0, share: float = 0.6) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("grid", [(30,), (9, 12), (4, 5, 6)])
def test_component_is_that_of_labelled_regions(grid: tuple[int, ...]) -> None:
    masks = _masks((40, *grid))
    seeds = torch.randint(0, masks[0].numel(), (40,), generator=torch.Generator().manual_seed(1))
    found = component(masks.flatten(1), seeds, grid).view_as(masks)
    for mask, seed, own in zip(masks.numpy(), seeds.tolist(), found.numpy(), strict=True):
        labels, _ = ndimage.label(mask)
        label = labels.ravel()[seed]
        assert np.array_equal(own, (labels == label) if label else np.zeros_like(mask))


def test_component_follows_a_snake() -> None:
    snake = torch.zeros(7, 9, dtype=torch.bool)
    snake[::2] = True
    snake[1, -1] = snake[3, 0] = snake[5, -1] = True
    assert component(snake.flatten()[None], torch.tensor([0]), (7, 9)).equal(snake.flatten()[None])
    snake[3, 0] = False
    assert int(component(snake.flatten()[None], torch.tensor([0]), (7, 9)).sum()) == 19


def test_boxes_go_around_the_masks_as_those_of_scenes_do() -> None:
    masks = torch.zeros(2, 2, 5, 8, dtype=torch.bool)
    masks[0, 0, 1:4, 2:7] = True
    masks[0, 1, 4, 0] = True
    masks[1, 0] = True
    objects = Objects(masks, masks.float(), {})
    assert objects.boxes.tolist() == [[[2, 1, 7, 4], [0, 4, 1, 5]], [[0, 0, 8, 5], [0, 0, 0, 0]]]
    assert objects.found.tolist() == [[True, True], [True, False]]
    assert len(objects) == 2


def test_boxes_on_any_number_of_axes() -> None:
    line = _masks((6, 3, 9), share=0.3)
    for mask, box in zip(line.flatten(0, 1), Objects(line, line.float(), {}).boxes.flatten(0, 1).tolist(), strict=True):
        places = mask.nonzero()[:, 0].tolist()
        assert box == ([min(places), max(places) + 1] if places else [0, 0])
    solid = torch.zeros(1, 1, 3, 4, 5, dtype=torch.bool)
    solid[0, 0, 1:3, 0:2, 4] = True
    assert Objects(solid, solid.float(), {}).boxes.tolist() == [[[4, 0, 1, 5, 2, 3]]]


def test_scenes_count_boxes_alike() -> None:
    from interp.data.scenes import scenes

    row = scenes(1, seed=3, objects=(2, 2))[0]
    masks = torch.from_numpy(row["mask"]).bool()[None]
    assert Objects(masks, masks.float(), {}).boxes[0].tolist() == row["boxes"].tolist()


def test_the_first_of_values_that_rounding_sets_apart() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0 + 1e-12], [-1.0, -1.0 - 1e-15, -2.0]], dtype=torch.float64)
    assert foremost(values).tolist() == [1, 0]


def test_what_is_not_finite_is_refused() -> None:
    acts = torch.randn(4, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    acts[1, 0, 0, 0], acts[3, 2, 2, 4] = torch.nan, torch.inf
    with pytest.raises(ValueError, match=r"acts are not finite in examples \[1, 3\], but TokenCut compares"):
        TokenCut()(acts)
