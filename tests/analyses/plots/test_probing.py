import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from analyses.plots.probing import probing
from interp.stores.memory import MemoryStore
from saes.metrics.sparse_probing import sparse_probing
from saes.probes.samples import gather


@pytest.fixture(scope="module")
def found():
    """Channels that tell a class, others that tell half as much of it, and noise."""
    generator = torch.Generator().manual_seed(0)
    told = (torch.arange(300) % 2).float()
    noise = torch.randn(300, 4, generator=generator)
    stores = {"clear": noise + told[:, None], "faint": noise + told[:, None] / 2, "noise": noise}
    return {
        name: sparse_probing(gather(MemoryStore.from_values(values), told.long()), (1, 4), resamples=100)
        for name, values in stores.items()
    }


def test_points_are_the_aurocs_with_their_intervals(found):
    given = Figure().add_subplot()
    ax = probing(found, ax=given)
    assert ax is given
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(found)
    for drawn, one in zip(ax.containers, found.values(), strict=True):
        x, y = drawn.lines[0].get_xydata().T
        np.testing.assert_allclose(x, [1, 4], rtol=0.1)
        np.testing.assert_allclose(y, [one.auroc[k].value for k in (1, 4)])
        ends = [sorted(segment[:, 1]) for segment in drawn.lines[2][0].get_segments()]
        np.testing.assert_allclose(ends, [[one.auroc[k].low, one.auroc[k].high] for k in (1, 4)])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4"]
    assert list(ax.lines[-1].get_ydata()) == [0.5, 0.5]


def test_differences_are_paired_and_leave_out_whom_they_are_from(found):
    ax = probing(found, above="noise")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["clear", "faint"]
    expected = found["faint"].above(found["noise"])
    np.testing.assert_allclose(ax.containers[1].lines[0].get_xydata()[:, 1], [expected[k].value for k in (1, 4)])
    ends = [sorted(segment[:, 1]) for segment in ax.containers[1].lines[2][0].get_segments()]
    np.testing.assert_allclose(ends, [[expected[k].low, expected[k].high] for k in (1, 4)])
    assert list(ax.lines[-1].get_ydata()) == [0, 0]
    assert ax.get_ylabel() == "AUROC less that of noise"


def test_a_name_keeps_its_color_in_both_views(found):
    color = {c.get_label(): c.lines[0].get_color() for c in probing(found).containers}
    assert {c.get_label(): c.lines[0].get_color() for c in probing(found, above="clear").containers} == {
        name: color[name] for name in ("faint", "noise")
    }


def test_errors(found):
    with pytest.raises(ValueError, match="found is empty"):
        probing({})
    with pytest.raises(ValueError, match="found has clear, faint, noise and above is 'pca'"):
        probing(found, above="pca")
    with pytest.raises(ValueError, match="one more for `above`"):
        probing({"clear": found["clear"]}, above="clear")
