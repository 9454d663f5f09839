import numpy as np
import pytest
import torch

from analyses.dictionary.bundle import FeatureDictionary
from analyses.plots.patch_examples import heat_of, patch_examples
from interp.stores.memory import MemoryStore
from interp.types import Activations, Geometry, Item


@pytest.fixture(scope="module")
def pictured(make_directions, tmp_path_factory):
    """Three pictures of 2 x 3 patches behind a class token; feature 0 is one patch's place in the picture."""
    values = torch.zeros(3 * 7, 4)
    values[:, 0] = torch.arange(21) % 7
    values[7 + 4, 1] = 2.0
    geometry = Geometry("grid", (2, 3), prefix=1, stride=(4, 4), patch=(4, 4), input_size=(8, 12))
    items = [Item(image=torch.full((8, 12, 1), 50 * i, dtype=torch.uint8)) for i in range(3)]
    store = MemoryStore(
        Activations(values, torch.arange(21) // 7, torch.arange(21) % 7), geometry=geometry, items=items
    )
    path = tmp_path_factory.mktemp("pictured") / "bundle"
    return FeatureDictionary.build(make_directions(), store, path, progress=False)


def test_heat_lies_on_its_patches(pictured):
    (example,) = [e for e in pictured.feature(1) if e["bin"] == "top"]
    assert np.allclose(heat_of(pictured, example), [[0, 0, 0], [2, 0, 0]])
    ramp = next(e for e in pictured.feature(0) if e["bin"] == "top")
    assert np.allclose(heat_of(pictured, ramp), [[1, 2, 3], [4, 5, 6]], atol=0.03)


def test_a_row_a_feature_with_pictures_under_the_heat(pictured):
    figure = patch_examples(pictured, [0, 1], examples=3)
    drawn = figure.axes[:6]
    assert [len(ax.images) for ax in drawn] == [2, 2, 2, 2, 0, 0]
    picture, heat = drawn[3].images
    assert (np.asarray(picture.get_array()) == 50).all() and np.asarray(heat.get_array()).max() == 2
    assert drawn[0].get_title(loc="left") == "feature 0  costs \\$5_"
    assert [ax.get_ylim()[1] for ax in figure.axes[6:]] == pytest.approx([6, 2])


def test_what_cannot_be_drawn_is_refused(pictured, bundle):
    with pytest.raises(ValueError, match="no grid of patches"):
        patch_examples(bundle, [0])
    with pytest.raises(ValueError, match=r"features is \[4\], but it takes one or more of 0 to 3"):
        patch_examples(pictured, [4])
    with pytest.raises(ValueError, match="kind is 'best'"):
        patch_examples(pictured, [0], kind="best")
