import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses.plots.activation_histogram import activation_histogram


def counted(values, bars):
    """A slow count: values in each bar's span."""
    return [sum(bar.get_x() <= v < bar.get_x() + bar.get_width() for v in values.tolist()) for bar in bars]


@pytest.mark.parametrize("feature", [0, 1])
def test_bars_count_the_active_values(bundle, values, feature):
    ax = activation_histogram(bundle, feature)
    active = values[:, feature][values[:, feature] > 0]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == counted(active, ax.patches)
    assert sum(heights) == len(active)
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_signed_values_lie_on_both_sides_of_zero(make_bundle, values):
    ax = activation_histogram(make_bundle(signed=True), 2)
    heights = np.array([bar.get_height() for bar in ax.patches])
    left = np.array([bar.get_x() < 0 for bar in ax.patches])
    assert heights[left].sum() == (values[:, 2] < 0).sum()
    assert heights[~left].sum() == (values[:, 2] > 0).sum()
    assert ax.get_xscale() == "symlog"


def test_a_dead_feature_says_so(bundle):
    ax = activation_histogram(bundle, 3)
    assert not ax.patches
    assert [text.get_text() for text in ax.texts] == ["never fired in 200 tokens"]


def test_axes_are_named_and_the_given_one_is_used(bundle):
    given = Figure().add_subplot()
    ax = activation_histogram(bundle, 0, ax=given)
    assert ax is given
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("activation (units of the model)", "tokens a bin")
    ax.figure.canvas.draw()  # A dollar sign in a label is no formula.
    assert ax.get_title() == r"feature 0: costs \$5_"


def test_refuses_an_unknown_feature(bundle):
    with pytest.raises(ValueError, match=r"feature is 4, but the bundle holds features 0 to 3"):
        activation_histogram(bundle, 4)
