import numpy as np
import pytest
import torch

from analyses.maps import Maps
from analyses.plots.map_matrix import map_examples, map_matrix
from interp.types import Geometry

GEOMETRY = Geometry("grid", grid=(2, 3), stride=(4, 4), input_size=(8, 12))


@pytest.fixture
def maps() -> Maps:
    draw = torch.Generator().manual_seed(0)
    signed, positive = torch.randn(5, 2, 3, generator=draw), torch.rand(5, 2, 3, generator=draw)
    values = {(site, name): part for site in "ab" for name, part in (("HiResCAM", signed), ("NormGrad", positive))}
    return Maps(values, torch.arange(5.0), {"a": GEOMETRY, "b": GEOMETRY})


def test_a_row_a_site_a_column_a_method_over_the_picture(maps: Maps) -> None:
    pictures = torch.rand(5, 3, 8, 12)
    figure = map_matrix(maps, pictures, example=2, smooth=False)
    assert len(figure.axes) == 4
    assert [ax.get_title() for ax in figure.axes[:2]] == ["HiResCAM", "NormGrad"]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["a", "b"]
    picture, heat = figure.axes[0].images
    assert np.allclose(picture.get_array(), pictures[2].mean(0))
    assert np.allclose(heat.get_array(), maps["a", "HiResCAM"][2])
    most = float(maps["a", "HiResCAM"][2].abs().max())
    assert (heat.norm.vmin, heat.norm.vmax) == pytest.approx((-most, most))  # two colours meet in 0
    assert figure.axes[1].images[1].norm.vmin == 0
    assert picture.get_extent() == heat.get_extent() == [0, 12, 8, 0]
    assert np.asarray(heat.get_alpha()).max() == pytest.approx(0.8)


def test_smooth_maps_have_the_inputs_size_and_squares_lie_on_their_patches(maps: Maps) -> None:
    assert map_matrix(maps).axes[0].images[0].get_array().shape == (8, 12)
    shifted = Geometry("grid", grid=(2, 3), stride=(3, 3), start=(1, 2), input_size=(8, 12))
    squares = map_matrix(Maps(maps.values, None, {"a": shifted, "b": shifted}), smooth=False).axes[0].images[0]
    assert squares.get_extent() == [2, 11, 7, 1]
    bare = Maps(maps.values, None, {site: Geometry("grid", grid=(2, 3)) for site in "ab"})
    assert map_matrix(bare).axes[0].images[0].get_array().shape == (2, 3)


def test_examples_side_by_side_with_their_scores(maps: Maps) -> None:
    figure = map_examples(maps, smooth=False)
    most = float(maps["a", "HiResCAM"].abs().max())
    assert {ax.images[0].norm.vmax for ax in figure.axes[:5]} == {most}  # a row has one scale
    assert {ax.images[0].norm.vmin for ax in figure.axes[:5]} == {-most}
    assert len(figure.axes) == 4 * 5  # there are no more than five
    assert [ax.get_title() for ax in figure.axes[:5]] == ["0", "1", "2", "3", "4"]
    assert figure.axes[0].get_ylabel() == "a\nHiResCAM"
    assert len(map_examples(maps, examples=[4, 1]).axes) == 8


def test_a_row_a_feature(maps: Maps) -> None:
    values = {("a", "HiResCAM"): torch.rand(5, 2, 2, 3)}
    of_features = Maps(values, None, {"a": GEOMETRY}, features=(7, 31))
    figure = map_matrix(of_features, example=1, smooth=False)
    assert [ax.get_ylabel() for ax in figure.axes] == ["feature 7", "feature 31"]
    assert np.allclose(figure.axes[1].images[0].get_array(), values["a", "HiResCAM"][1, 1])


def test_what_cannot_be_drawn_is_refused(maps: Maps) -> None:
    with pytest.raises(ValueError, match=r"examples are \[5\], but maps are of 0 to 4"):
        map_matrix(maps, example=5)
    with pytest.raises(ValueError, match="examples are \\[\\], but maps"):
        map_examples(maps, examples=[])
    words = Maps({("a", "m"): torch.rand(2, 9)}, None, {"a": Geometry()})
    with pytest.raises(
        ValueError, match=r"maps of a have 1 axes, but a picture has two: draw those of texts with .*map_texts"
    ):
        map_matrix(words)
