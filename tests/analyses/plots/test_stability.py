import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from analyses.plots.stability import stability
from saes.metrics import stability as metric


def _measured(*seeds, **options):
    rows = [torch.randn(30, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return metric.stability(rows, **options)


def test_bars_hold_every_match_as_a_share_of_its_own():
    found = {"trained": _measured(0, 1, 2), "same": _measured(3, 3)}
    given = Figure().add_subplot()
    ax = stability(found, bins=10, ax=given)
    assert ax is given
    least = min(float(one.matches.min()) for one in found.values())
    for outline, one in zip(ax.patches, found.values(), strict=True):
        cosines = one.matches.flatten().numpy().clip(max=1)
        counts, edges = np.histogram(cosines, np.linspace(least, 1, 11))
        path = outline.get_path().vertices
        assert set(np.round(path[:, 0], 6)) == set(np.round(edges, 6))
        drawn = [path[np.isclose(path[:, 0], left), 1].max() for left in edges[:-1]]
        beside = np.maximum(counts, np.concatenate([[0], counts[:-1]])) / len(cosines)
        np.testing.assert_allclose(drawn, beside, atol=1e-9)
        assert counts.sum() == len(cosines)
    colors = [matplotlib.colors.to_hex(outline.get_edgecolor()) for outline in ax.patches]
    assert len(set(colors)) == 2


def test_legend_and_threshold():
    ax = stability({"trained": _measured(0, 1, threshold=0.6), "bare": _measured(0, 1, threshold=0.6, resamples=0)})
    mean = _measured(0, 1).cosine
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"trained: mean {mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]" in texts
    assert f"bare: mean {mean.value:.2f}" in texts
    assert "shared from 0.6" in texts
    assert list(ax.lines[0].get_xdata()) == [0.6, 0.6]


def test_errors():
    with pytest.raises(ValueError, match="found is empty, but a figure shows one or more"):
        stability({})
    with pytest.raises(ValueError, match=r"found has thresholds \[0.5, 0.7\]"):
        stability({"a": _measured(0, 1), "b": _measured(0, 1, threshold=0.5)})
    with pytest.raises(ValueError, match="bins is 0"):
        stability({"a": _measured(0, 1)}, bins=0)
