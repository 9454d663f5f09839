import numpy as np
import pytest
import torch

from analyses.plots.segments import segment_examples
from analyses.segmenting import Segments
from interp.types import Geometry, Site

GEOMETRY = Geometry("grid", grid=(2, 3), stride=(4, 4), input_size=(8, 12))


def _segments(geometry: Geometry = GEOMETRY) -> Segments:
    masks = torch.zeros(5, 2, 2, 3, dtype=torch.bool)
    masks[:, 0, 1, :2] = True
    masks[3, 1, 0, 2] = True
    return Segments(masks, masks.float(), {}, Site("a"), geometry)


def test_masks_and_boxes_lie_over_the_picture() -> None:
    segments, pictures = _segments(), torch.rand(5, 3, 8, 12)
    figure = segment_examples(segments, pictures)
    assert len(figure.axes) == 5  # there are no more than five
    ax = figure.axes[3]
    picture, first, second = ax.images
    assert np.allclose(picture.get_array(), pictures[3].mean(0))
    whole = segments.upsampled()
    for image, mask in zip((first, second), whole.masks[3], strict=True):
        assert np.array_equal(np.asarray(image.get_array())[..., 3] > 0, mask.numpy())
    assert [box.get_bbox().extents.tolist() for box in ax.patches] == [[0, 4, 8, 8], [8, 0, 12, 4]]
    assert [box.get_edgecolor()[:3] for box in ax.patches] == [
        tuple(np.asarray(image.get_array())[mask.numpy()][0, :3])
        for image, mask in zip((first, second), whole.masks[3], strict=True)
    ]
    assert picture.get_extent() == first.get_extent() == [0, 12, 8, 0]
    assert len(figure.axes[0].patches) == 1  # the second object is not there


def test_examples_are_chosen_and_wrapped() -> None:
    figure = segment_examples(_segments(), examples=[4, 1, 3], columns=2, boxes=False)
    assert len(figure.axes) == 3
    assert [len(ax.images) for ax in figure.axes] == [2, 2, 2] and not figure.axes[2].patches


def test_without_a_place_in_the_input_positions_are_drawn() -> None:
    figure = segment_examples(_segments(Geometry("grid", grid=(2, 3))))
    assert figure.axes[0].images[0].get_array().shape == (2, 3, 4)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"examples are \[5\] in 8 columns, but segments are of 0 to 4"):
        segment_examples(_segments(), examples=[5])
    words = Segments(torch.ones(2, 1, 9).bool(), torch.ones(2, 1, 9), {}, Site("a"), Geometry())
    with pytest.raises(ValueError, match="masks of a have 1 axes, but a picture has two"):
        segment_examples(words)
