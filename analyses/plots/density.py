"""How often the features of a dictionary fire."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from analyses.dictionary.bundle import FeatureDictionary


def density(bundle: FeatureDictionary, *, bins: int = 40, ax: Axes | None = None) -> Axes:
    """Draw the histogram of log10 firing density over the features that fire; the dead are counted in the title.

    Args:
        bundle: The dictionary.
        bins: Bars between the rarest and the most frequent feature.
        ax: Where to draw; a new figure by default.

    Raises:
        ValueError: If `bins` is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, but a histogram has at least one: give a positive number.")
    columns, counts = bundle.features(), bundle.manifest["counts"]
    unit = "patches" if bundle.manifest["geometry"]["kind"] == "grid" else "tokens"
    alive = ~columns["dead"].astype(bool)
    dead = int((~alive).sum())
    ax = ax if ax is not None else plt.subplots(figsize=(5.2, 3.2), layout="constrained")[1]
    ax.set_title(f"{alive.sum():,} features, {dead:,} dead ({dead / max(len(alive), 1):.1%})")
    ax.set_xlabel(f"log10 density (share of {counts['rows']:,} {unit})")
    ax.set_ylabel("features")
    if not alive.any():
        ax.text(0.5, 0.5, "no feature ever fired", ha="center", va="center", transform=ax.transAxes)
        return ax
    values = np.log10(columns["density"][alive])
    sns.histplot(x=values, bins=bins, color=sns.color_palette("mako", 5)[2], edgecolor="white", linewidth=0.4, ax=ax)
    ax.set_ylabel("features")
    median = float(np.median(values))
    ax.axvline(median, color=sns.color_palette("rocket", 5)[2], linestyle="--", label=f"median {10**median:.2g}")
    ax.legend(frameon=False)
    sns.despine(ax=ax)
    return ax
