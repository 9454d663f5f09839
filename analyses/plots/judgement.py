"""What judges say of maps: a panel a judge, a line a method, its mean and interval."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from analyses.judging import Judgement


def judgement(found: Judgement) -> Figure:
    """Draw means and 95 % intervals of all methods side by side, the best first by the first judge.

    An arrow says which way is better; a dashed line is a limit, and what fails it is drawn hollow.

    Args:
        found: What `analyses.judging.judge` found.

    Returns:
        The figure; its axes are in one row.
    """
    first = next(iter(found.judges))
    short = [name.partition("(")[0] for name in found.judges]
    titles = short if len(set(short)) == len(short) else list(found.judges)
    sign = 1 if found.judges[first].better == "higher" else -1
    keys = sorted(found.values, key=lambda key: sign * found.interval(key[0], key[1], first).value)
    several = len({site for site, _ in keys}) > 1
    height, width = 0.26 * len(keys) + 1.1, 2.3 * len(found.judges) + 1.6
    figure, axes = plt.subplots(1, len(found.judges), figsize=(width, height), sharey=True, squeeze=False)
    places, color = np.arange(len(keys)), sns.color_palette("deep")[0]
    for (name, judge), title, ax in zip(found.judges.items(), titles, axes[0], strict=True):
        for place, key in zip(places, keys, strict=True):
            one = found.interval(*key, name)
            low, high = (one.value if end is None else end for end in (one.low, one.high))
            fails = name in found.failed(*key)
            ax.plot([low, high], [place, place], color=color, linewidth=1.5)
            ax.plot(one.value, place, "o", color=color, markersize=5, markerfacecolor="white" if fails else color)
        if judge.limit is not None:
            ax.axvline(judge.limit, color="0.4", linestyle="--", linewidth=1)
        arrow = "→" if judge.better == "higher" else "←"
        ax.set_title(f"{title} {arrow}", fontsize=9)
        ax.tick_params(labelsize=8)
        sns.despine(ax=ax)
    axes[0][0].set_yticks(places, [f"{method} · {site}" if several else method for site, method in keys], fontsize=8)
    figure.tight_layout()
    return figure
