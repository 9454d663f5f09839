"""How trainings went: FVU, L0, dead features and loss over tokens, one line a job."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from interp.types import JSON

METRICS = {
    "fvu": "FVU (share of variance unexplained)",
    "l0": "L0 (active features a row)",
    "dead": "dead features (share)",
    "loss": "loss",
}
Metric = Literal["fvu", "l0", "dead", "loss"]


def read_metrics(path: Path | str) -> dict[str, list[JSON]]:
    """The lines of a run's `metrics.jsonl` by job, in order; a torn last line of a running training is left out.

    Args:
        path: The file, or the folder of the run.

    Raises:
        ValueError: If there is no such file, or a line inside it is no JSON object.
    """
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the folder of a run, or its metrics.jsonl.")
    jobs: dict[str, list[JSON]] = {}
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate([*lines, rest], 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            jobs.setdefault(str(record["job"]), []).append(record)
        except (ValueError, KeyError, TypeError) as error:
            if number > len(lines):
                break  # No line break yet: its writer is still at it.
            raise ValueError(
                f"{path} line {number} is no record of a job: cut the file there, or train again."
            ) from error
    return jobs


def training_curves(
    runs: Sequence[Path | str] | Mapping[str, Path | str],
    *,
    metric: Metric = "fvu",
    against: Literal["tokens", "step"] = "tokens",
    ax: Axes | None = None,
) -> Axes:
    """Draw one metric of every job of one or several runs.

    Args:
        runs: Folders of runs or their metrics.jsonl, by name; their folder names by default.
        metric: What to draw.
        against: What the horizontal axis counts.
        ax: Where to draw; a new figure by default.

    Raises:
        ValueError: If a run is missing or damaged, or `metric` or `against` is unknown.
    """
    for name, value, known in (("metric", metric, tuple(METRICS)), ("against", against, ("tokens", "step"))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}, but it is one of {', '.join(known)}: choose one of these.")
    lines = _lines(runs)
    ax = ax if ax is not None else plt.subplots(figsize=(5.6, 3.4), layout="constrained")[1]
    positive = True
    for (name, records), color in zip(lines.items(), sns.color_palette("viridis", max(len(lines), 1)), strict=True):
        x = [record[against] for record in records]
        # A step that was skipped has no number; the line has a gap there.
        y = np.array([np.nan if record.get(metric) is None else record[metric] for record in records], float)
        ax.plot(x, y, color=color, label=name, linewidth=1.6, marker="o" if len(x) == 1 else None)
        positive = positive and bool((y[np.isfinite(y)] > 0).all())
    ax.set_xlabel("tokens (activations seen)" if against == "tokens" else "step")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_ylabel(METRICS[metric])
    if metric in ("fvu", "loss") and positive and lines:
        ax.set_yscale("log")
    if lines:
        ax.legend(frameon=False, fontsize="small")
    sns.despine(ax=ax)
    return ax


def _lines(runs: Sequence[Path | str] | Mapping[str, Path | str]) -> dict[str, list[JSON]]:
    """Records of each line of the figure, by its name; the run's name is left out where there is one run."""
    if isinstance(runs, str | Path):
        raise ValueError(f"runs is {str(runs)!r}, but it takes a list of runs: write [{str(runs)!r}].")
    pairs = list(runs.items()) if isinstance(runs, Mapping) else [(_name(Path(path)), path) for path in runs]
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("runs has two folders of one name: give a mapping from names to paths.")
    found = {}
    for name, path in pairs:
        for job, records in read_metrics(path).items():
            found[job if len(pairs) == 1 else f"{name} {job}"] = records
    return found


def _name(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.suffix == ".jsonl" else path.name
