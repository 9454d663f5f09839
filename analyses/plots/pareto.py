"""What a sweep of dictionaries traded: sparsity against what stays unexplained."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

from saes.evaluation import Evaluation
from saes.metrics.bootstrap import Interval


def pareto(evaluations: Mapping[str, Evaluation], *, x: str = "l0", y: str = "fvu", ax: Axes | None = None) -> Axes:
    """Draw each evaluation as a point with its 95 % intervals; a line joins those whose names differ after a last '-'.

    Args:
        evaluations: By name: `topk-8` and `topk-16` are one line, `topk`.
        x: The metric across.
        y: The metric upwards.
        ax: Where to draw; a new figure by default.

    Raises:
        ValueError: If there is nothing to draw, or an evaluation lacks a metric.
    """
    if not evaluations:
        raise ValueError("evaluations is empty: give at least one, by name.")
    for name, evaluation in evaluations.items():
        for metric in (x, y):
            if metric not in evaluation.metrics:
                known = ", ".join(evaluation.metrics)
                raise ValueError(f"evaluation {name!r} has no metric {metric!r}: it has {known}.")
    families: dict[str, list[Evaluation]] = {}
    for name, evaluation in evaluations.items():
        families.setdefault(name.rpartition("-")[0] or name, []).append(evaluation)
    ax = ax if ax is not None else plt.subplots(figsize=(5.2, 3.6), layout="constrained")[1]
    for color, (family, members) in zip(sns.color_palette("deep", len(families)), families.items(), strict=True):
        members = sorted(members, key=lambda one: one[x].value)
        across, up = ([one[metric] for one in members] for metric in (x, y))
        ax.errorbar(
            [point.value for point in across],
            [point.value for point in up],
            xerr=_arms(across),
            yerr=_arms(up),
            fmt="o-",
            markersize=5,
            linewidth=1,
            capsize=2,
            color=color,
            label=family,
        )
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend(frameon=False)
    sns.despine(ax=ax)
    return ax


def _arms(points: Sequence[Interval]) -> list[list[float]]:
    """How far down and up each interval reaches from its value; no arms where there is no interval."""
    low = [0.0 if point.low is None else point.value - point.low for point in points]
    high = [0.0 if point.high is None else point.high - point.value for point in points]
    return [[max(arm, 0.0) for arm in low], [max(arm, 0.0) for arm in high]]
