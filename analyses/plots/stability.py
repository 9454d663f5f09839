"""What dictionaries of several seeds share: the cosines of latents with their partners."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from saes.metrics.stability import Stability


def stability(found: Mapping[str, Stability], *, bins: int = 40, ax: Axes | None = None) -> Axes:
    """Draw the histogram of cosines of each, over all pairs of seeds, with mean and interval in the legend.

    A dashed line is the threshold from which a latent counts as shared. Random directions of the same number and width,
    measured in the same way, show what the best pairing finds where there is nothing to find.

    Args:
        found: What `saes.metrics.stability.stability` found, by name.
        bins: Bars between the least cosine and 1.
        ax: Where to draw; a new figure by default.

    Raises:
        ValueError: If there is nothing to draw, `bins` is not positive, or thresholds differ.
    """
    thresholds = {one.threshold for one in found.values()}
    if len(thresholds) != 1:
        what = f"has thresholds {sorted(thresholds)}" if thresholds else "is empty"
        raise ValueError(f"found {what}, but a figure shows one or more of one threshold: give such, by name.")
    if bins < 1:
        raise ValueError(f"bins is {bins}, but a histogram has at least one: give a positive number.")
    ax = ax if ax is not None else plt.subplots(figsize=(5.6, 3.8), layout="constrained")[1]
    edges = np.linspace(min(float(one.matches.min()) for one in found.values()), 1, bins + 1)
    for color, (name, one) in zip(sns.color_palette("deep", len(found)), found.items(), strict=True):
        cosines = one.matches.flatten().numpy().clip(max=1)
        ax.hist(
            cosines,
            edges.tolist(),
            weights=np.full(len(cosines), 1 / len(cosines)),
            histtype="stepfilled",
            facecolor=(*color, 0.35),
            edgecolor=color,
            label=f"{name}: mean {_shown(one)}",
        )
    threshold = thresholds.pop()
    ax.axvline(threshold, color="0.4", linestyle="--", linewidth=1, label=f"shared from {threshold:g}")
    ax.set_xlabel("cosine with the partner in another seed's dictionary")
    ax.set_ylabel("share of latents")
    # Above the axes: the line would run through it.
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    sns.despine(ax=ax)
    return ax


def _shown(one: Stability) -> str:
    """The mean cosine, with its interval over latents."""
    mean = one.cosine
    return f"{mean.value:.2f}" + ("" if mean.low is None else f" [{mean.low:.2f}, {mean.high:.2f}]")
