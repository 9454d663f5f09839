"""How strongly one feature of a dictionary fires: the histogram of its active values."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from analyses.dictionary.bundle import FeatureDictionary


def activation_histogram(bundle: FeatureDictionary, feature: int, *, ax: Axes | None = None) -> Axes:
    """Draw the counts of active values over the logarithmic bins of the bundle, both axes logarithmic.

    Args:
        bundle: The dictionary.
        feature: Index of the feature.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes; a bar for each bin that holds something.

    Raises:
        ValueError: If the bundle has no such feature.
    """
    if not 0 <= feature < len(bundle):
        raise ValueError(f"feature is {feature}, but the bundle holds features 0 to {len(bundle) - 1}: choose one.")
    columns, edges = bundle.features(), bundle.edges()
    counts, rows = columns["histogram"][feature], bundle.manifest["counts"]["rows"]
    unit = "patches" if bundle.manifest["geometry"]["kind"] == "grid" else "tokens"
    ax = ax if ax is not None else plt.subplots(figsize=(5.2, 3.2), layout="constrained")[1]
    used = np.flatnonzero(counts)
    color = sns.color_palette("mako", 5)[2]
    ax.bar(edges[used], counts[used], np.diff(edges)[used], align="edge", color=color, edgecolor="white", linewidth=0.4)
    name = columns["label"][feature]
    title = f"feature {feature}" + (f": {name}" if isinstance(name, str) else "")
    ax.set_title(title.replace("$", r"\$"))
    ax.set_xlabel("activation (units of the model)")
    ax.set_ylabel(f"{unit} a bin")
    sns.despine(ax=ax)
    if not len(used):
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, f"never fired in {rows:,} {unit}", ha="center", va="center", transform=ax.transAxes)
        return ax
    ax.set_yscale("log")
    ax.set_ylim(0.6, counts.max() * 1.6)
    _scale_activations(ax, edges[used], edges[used + 1])
    return ax


def _scale_activations(ax: Axes, left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """A logarithmic axis with a tick an octave, as the bins are; values with a sign leave out the empty middle."""
    ends = np.abs(np.concatenate([left, right]))
    nearest, farthest = ends[ends > 0].min(), ends.max()
    if left[0] < 0:
        ax.set_xscale("symlog", base=2, linthresh=nearest, linscale=1)
    else:
        ax.set_xscale("log", base=2)
        # A bin that starts at zero has no left end on this axis.
        ax.set_xlim(left=left[0] if left[0] > 0 else nearest / 2, right=right[-1])
    first, last = int(np.ceil(np.log2(nearest))), int(np.floor(np.log2(farthest)))
    octaves = 2.0 ** np.arange(first, last + 1, max(1, (last - first) // 4))
    ticks = np.concatenate([-octaves[::-1], [0.0], octaves]) if left[0] < 0 else octaves
    if len(octaves) > 1:
        ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    else:
        ax.set_xticks([left[0], right[-1]], [f"{left[0]:.3g}", f"{right[-1]:.3g}"])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
