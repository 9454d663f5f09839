"""What few features tell of labels: k-sparse probing of several dictionaries at equal k."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from saes.metrics.bootstrap import Interval
from saes.metrics.sparse_probing import SparseProbing

_MARKERS = "osD^vPXph<>"
_APART = 1.06  # So that intervals at one k stand side by side.


def probing(found: Mapping[str, SparseProbing], *, above: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the AUROC against k, a line a name, with 95 % intervals; the dotted line is what a constant gets.

    Two intervals that overlap say little of a difference, as all are measured on the same examples. With `above`, what
    is drawn is the difference from one of them, with its paired interval: where it excludes 0, the two differ.

    Args:
        found: What `saes.metrics.sparse_probing.sparse_probing` found, by name.
        above: Name of the one to draw the differences from.
        ax: Where to draw; a new figure by default.

    Raises:
        ValueError: If there is nothing to draw, `above` is not among it, or the examples differ.
    """
    if not found or (above is not None and (above not in found or len(found) == 1)):
        rule = "is empty" if not found else f"has {', '.join(found)} and above is {above!r}"
        raise ValueError(f"found {rule}: give at least one, by name, and one more for `above`, by the name of another.")
    ax = ax if ax is not None else plt.subplots(figsize=(5.2, 3.6), layout="constrained")[1]
    colors = sns.color_palette("deep", len(found))
    for i, (name, one) in enumerate(found.items()):
        if name != above:
            aside = _APART ** (i - (len(found) - 1) / 2)
            _draw(ax, one.auroc if above is None else one.above(found[above]), aside, colors[i], _MARKERS[i % 11], name)
    ks = sorted({k for one in found.values() for k in one.auroc})
    ax.axhline(0.5 if above is None else 0.0, color="0.4", linestyle=":", linewidth=1, zorder=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("k (features the probe may read)")
    ax.set_ylabel("AUROC, mean over classes" if above is None else f"AUROC less that of {above}")
    ax.legend(facecolor="white", edgecolor="none", fontsize="small")
    sns.despine(ax=ax)
    return ax


def _draw(
    ax: Axes, values: Mapping[int, Interval], aside: float, color: tuple[float, ...], marker: str, name: str
) -> None:
    """One line, its arms as long as its intervals."""
    low = [0.0 if one.low is None else max(one.value - one.low, 0.0) for one in values.values()]
    high = [0.0 if one.high is None else max(one.high - one.value, 0.0) for one in values.values()]
    ax.errorbar(
        [k * aside for k in values],
        [one.value for one in values.values()],
        yerr=[low, high],
        fmt=f"{marker}-",
        markersize=5,
        linewidth=1,
        capsize=2,
        color=color,
        label=name,
    )
