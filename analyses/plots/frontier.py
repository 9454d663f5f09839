"""The frontier of a sweep: what each method leaves unexplained at the sparsity it takes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from interp.durability import write_bytes
from interp.types import JSON

_MARKERS = "osD^vPXph<>"


def frontier(settings: Sequence[JSON], *, ax: Axes | None = None) -> Axes:
    """Draw FVU against L0, a colour a method, a point a setting with the interval of each.

    A line joins the settings of a method that none of its others beats; full points with a label are those that no
    setting of any method beats.

    Args:
        settings: What `saes.sweep_results.summary` makes of a sweep.
        ax: Where to draw; a new figure by default.

    Raises:
        ValueError: If no setting was trained to the end.
    """
    drawn = [setting for setting in settings if setting["fvu"] is not None]
    if not drawn:
        raise ValueError("settings has none that was trained to the end: there is nothing to draw.")
    ax = ax if ax is not None else plt.subplots(figsize=(6.4, 4.2), layout="constrained")[1]
    methods = list(dict.fromkeys(setting["family"] for setting in drawn))
    # Even steps of lightness and hue; the last of them is too light for paper.
    colors = sns.color_palette("viridis", len(methods) + 1)[: len(methods)]
    for i, (method, color) in enumerate(zip(methods, colors, strict=True)):
        own = [setting for setting in drawn if setting["family"] == method]
        _draw(ax, own, color, _MARKERS[i % len(_MARKERS)], method)
    _scale(ax, drawn)
    ax.set_xlabel("L0 (active latents a row)")
    ax.set_ylabel("FVU (share of variance unexplained)")
    ax.legend(frameon=False)
    sns.despine(ax=ax)
    _label(ax, [setting for setting in drawn if setting["frontier"]])
    return ax


def save(ax: Axes, folder: Path) -> None:
    """Write a figure as `frontier.png` and `frontier.svg`; equal figures, equal bytes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    with plt.rc_context({"svg.hashsalt": "unweave"}):
        for kind, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            held = io.BytesIO()
            figure.savefig(held, format=kind, dpi=200, metadata=about)
            write_bytes(folder / f"frontier.{kind}", held.getvalue())


def _draw(ax: Axes, own: Sequence[JSON], color: tuple[float, ...], marker: str, method: str) -> None:
    """The settings of one method."""
    best: list[JSON] = []
    for setting in sorted(own, key=lambda one: (one["l0"], one["fvu"])):
        if not best or setting["fvu"] < best[-1]["fvu"]:
            best.append(setting)
    ax.plot([s["l0"] for s in best], [s["fvu"] for s in best], color=color, linewidth=1.2, zorder=1)
    for setting in own:
        ax.errorbar(
            setting["l0"],
            setting["fvu"],
            xerr=_arms(setting, "l0"),
            yerr=_arms(setting, "fvu"),
            fmt=marker,
            markersize=6,
            markerfacecolor=color if setting["frontier"] else "white",
            color=color,
            elinewidth=1,
            capsize=2,
        )
    ax.plot([], [], marker=marker, color=color, label=method)


def _arms(setting: JSON, metric: str) -> list[list[float]] | None:
    """How far down and up an interval reaches."""
    value, low, high = (setting[metric + end] for end in ("", "_low", "_high"))
    return None if low is None else [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _scale(ax: Axes, drawn: Sequence[JSON]) -> None:
    """Logarithmic where values differ by a large factor, with plain numbers."""
    ax.margins(0.08)
    for metric, base, subs in (("l0", 2, (1.0,)), ("fvu", 10, (1.0, 2.0, 5.0))):
        values = [setting[metric] for setting in drawn]
        if min(values) > 0 and max(values) > 4 * min(values):
            axis = ax.xaxis if metric == "l0" else ax.yaxis
            (ax.set_xscale if metric == "l0" else ax.set_yscale)("log", base=base)
            axis.set_major_locator(LogLocator(base, subs))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())


def _label(ax: Axes, settings: Sequence[JSON]) -> None:
    """Say below and left of each point, where none can be that is not beaten, what it is; none over another."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    place: dict[str, Any] = {"xytext": (-5, -4), "textcoords": "offset points", "ha": "right", "va": "top"}
    points = [(setting["l0"], setting["fvu"]) for setting in settings]
    texts = [
        ax.annotate(setting["label"], point, fontsize="x-small", **place)
        for setting, point in zip(settings, points, strict=True)
    ]
    figure.draw_without_rendering()
    for text, (l0, _) in zip(texts, points, strict=True):
        _make_room(ax, l0, (text.get_window_extent().width + 8 * figure.dpi / 72) / ax.get_window_extent().width)
    taken: list[Bbox] = []
    for text in texts:
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


def _make_room(ax: Axes, x: float, share: float) -> None:
    """Move the left end so far that a label of this share of the width fits beside a point."""
    scale = ax.xaxis.get_transform()
    left, right, at = (float(value) for value in scale.transform([*ax.get_xlim(), x]))
    if share < 0.5 and (wanted := (at - right * share) / (1 - share)) < left:
        ax.set_xlim(left=float(scale.inverted().transform([wanted])[0]))
