import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses.plots.density import density


def test_bars_hold_every_feature_that_fires(bundle, values):
    ax = density(bundle, bins=8)
    share = np.log10((values > 0).float().mean(0).numpy()[:3])
    edges = np.linspace(share.min(), share.max(), 9)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], np.histogram(share, edges)[0])
    np.testing.assert_allclose([bar.get_x() for bar in ax.patches], edges[:-1], atol=1e-6)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.median(share), rtol=1e-6)


def test_the_dead_are_counted_in_the_title(bundle):
    given = Figure().add_subplot()
    ax = density(bundle, ax=given)
    assert ax is given
    assert ax.get_title() == "3 features, 1 dead (25.0%)"
    assert ax.get_xlabel() == "log10 density (share of 200 tokens)"
    assert ax.get_ylabel() == "features"


def test_refuses_no_bins(bundle):
    with pytest.raises(ValueError, match="bins is 0, but a histogram has at least one"):
        density(bundle, bins=0)
