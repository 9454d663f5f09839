"""What a store holds: norms by position, spectrum, dimensions, and how norms are distributed."""

from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from interp.diagnosis import Diagnosis
from interp.diagnosis_rules import EXTREME, OUTLIER, outliers
from interp.effective_rank import rank_me

_DEEP, _MIDDLE, _LIGHT = sns.color_palette("mako", 5)[1:4]
_MARKED = sns.color_palette("rocket", 5)[2]
_FLOOR = 1e-6  # Of the largest singular value: below is rounding.


def diagnosis(result: Diagnosis, *, figure: Figure | None = None) -> Figure:
    """Draw four panels; what is out of line is red.

    Args:
        result: What `interp.diagnose` found.
        figure: Where to draw; a new figure by default.

    Returns:
        The figure, with axes `position`, `spectrum`, `dimension` and `norm`, named so by `get_label`.
    """
    figure = figure if figure is not None else plt.figure(figsize=(9.6, 6.6), layout="constrained")
    axes = figure.subplots(2, 2).flat
    for ax, draw in zip(axes, (_positions, _spectrum, _dimensions, _norms), strict=True):
        draw(result, ax)
        sns.despine(ax=ax)
    measured = result.measured
    named = ", ".join(finding.name for finding in result.warnings)
    figure.suptitle(
        f"{result.site}: {measured.rows:,} rows of width {measured.d_in:,}\n"
        f"{f'warnings: {named}' if named else 'no warnings'}".replace("$", r"\$")
    )
    return figure


def _positions(result: Diagnosis, ax: Axes) -> None:
    norms, prefix = result.measured.norms, result.geometry.prefix
    places = np.flatnonzero(norms.rows.numpy())
    ax.set(title="Norm by position", xlabel="position in the example", ylabel="norm (model's units)", label="position")
    if len(places) == 1:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, f"all rows are at position {places[0]}", ha="center", va="center", transform=ax.transAxes)
        return
    low, middle, high = (norms.quantile(q).numpy()[places] for q in (0.1, 0.5, 0.9))
    ax.fill_between(places, low, high, color=_LIGHT, alpha=0.35, linewidth=0, label="10 to 90 % of the rows")
    ax.plot(places, middle, color=_DEEP, linewidth=1.5, label="median")
    far = middle > 2 * norms.median
    if far.any():
        ax.plot(places[far], middle[far], "o", color=_MARKED, markersize=4, label="over twice that of all rows")
    if prefix:
        ax.axvspan(-0.5, prefix - 0.5, color="0.9", zorder=0, label="class and register tokens")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if high.max() > 5 * low.min() > 0:
        _logarithmic(ax, "y", low.min() / 1.2, high.max() * 1.2)
    else:
        ax.set_ylim(0, 1.3 * high.max())
    ax.legend(frameon=False, fontsize="small")


def _spectrum(result: Diagnosis, ax: Axes) -> None:
    measured = result.measured
    for name, spectrum, color, style in (
        ("as stored", measured.spectrum, _LIGHT, "-"),
        ("less the mean", measured.centred_spectrum, _DEEP, "--"),
    ):
        label = f"{name}: RankMe {rank_me(spectrum):.4g}"
        shown = spectrum[spectrum > _FLOOR * float(measured.spectrum.max())].numpy()
        ax.plot(np.arange(1, len(shown) + 1), shown, style, color=color, linewidth=1.8, label=label)
    ax.set(title="Spectrum", xlabel="direction, by size", ylabel="size (model's units, RMS)", label="spectrum")
    largest = float(measured.spectrum.max())
    kept = measured.centred_spectrum[measured.centred_spectrum > _FLOOR * largest].tolist()
    _logarithmic(ax, "x", 0.9, 1.1 * measured.d_in)
    if kept:
        _logarithmic(ax, "y", min(*kept, largest / 10) / 1.2, 1.2 * largest)
    ax.legend(frameon=False, fontsize="small", loc="lower left")


def _dimensions(result: Diagnosis, ax: Axes) -> None:
    measured = result.measured
    order = measured.std.argsort(descending=True, stable=True)
    std, mean = measured.std[order].numpy(), measured.mean[order].abs().numpy()
    rank, found = np.arange(1, len(std) + 1), outliers(measured)
    ax.plot(rank, mean, ".", color=_LIGHT, markersize=3, alpha=0.7, label="size of the mean")
    ax.plot(rank, std, color=_DEEP, linewidth=1.8, label="standard deviation")
    if len(found):
        label = f"over {OUTLIER:g} medians"
        ax.plot(rank[: len(found)], std[: len(found)], "o", color=_MARKED, markersize=4, label=label)
        for place, dimension in enumerate(found[:3].tolist()):
            at = (rank[place], std[place])
            ax.annotate(str(dimension), at, (6, -3), textcoords="offset points", color=_MARKED, fontsize="small")
    ax.set(title="Dimensions", xlabel="dimension, by standard deviation", ylabel="model's units", label="dimension")
    _logarithmic(ax, "x", 0.9, 1.1 * measured.d_in)
    if std[0] > 0:
        _logarithmic(ax, "y", std[std > 0].min() / 10, 2 * max(std[0], mean.max()))
    ax.legend(frameon=False, fontsize="small", loc="best")


def _norms(result: Diagnosis, ax: Axes) -> None:
    norms = result.measured.norms
    counts, edges = norms.counts.sum(dim=0).numpy(), norms.edges.numpy()
    zero = result.measured.zero_rows
    counts[0] -= zero  # Norms of 0 have no place on this axis.
    ax.set(title="Norms" + (f" ({zero:,} rows of 0 left out)" if zero else ""), label="norm")
    ax.set(xlabel="norm (model's units)", ylabel="rows a bin")
    used = np.flatnonzero(counts)
    if not len(used):
        return
    step = 1 + (used[-1] - used[0]) // 48  # At most 48 bars.
    starts = np.arange(used[0], used[-1] + 1, step)
    heights = np.add.reduceat(counts[: used[-1] + 1], starts)
    left = edges[starts]
    limit = EXTREME * norms.median
    colors = [_MARKED if edge >= limit else _MIDDLE for edge in left]
    width = left * (edges[step] / edges[0] - 1)
    ax.bar(left, heights, width, align="edge", color=colors, edgecolor="white", linewidth=0.4)
    if norms.above(limit)[0]:
        ax.axvline(limit, color=_MARKED, linestyle="--", linewidth=1, label=f"{EXTREME:g} medians")
        ax.legend(frameon=False, fontsize="small")
    _logarithmic(ax, "x", left[0] / 1.1, (left + width)[-1] * 1.1)
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.6)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))


def _logarithmic(ax: Axes, name: Literal["x", "y"], low: float, high: float) -> None:
    """A logarithmic axis with plain numbers, and enough of them where it spans few decades."""
    ax.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = ax.xaxis if name == "x" else ax.yaxis
    few = high < 200 * low
    subs = range(1, 10) if high < 3 * low else (1, 2, 5) if few else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if few:
        axis.set_minor_locator(NullLocator())
