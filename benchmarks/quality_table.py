"""What the runs of `quality.py` found: the settings they are tuned to, tables, a figure."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from analyses.plots.pareto import pareto
from saes.evaluation import Evaluation
from saes.metrics.bootstrap import Interval

Result = dict[str, Any]
Pair = tuple[str, int]  # A world and a seed.
Side = tuple[str, str]  # Who, and with what method.

TUNING: Pair = ("base", 0)
K = 5  # Codes a row at which settings are tuned, and tables made.
NO_PEERS = ("ours", "truth", "oracle")
NEAR = 0.2  # An L0 this far from k, in parts of k, is still near it.
METRICS = ("fvu", "fvu_at_k", "l0", "mmcs", "dead")
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)


def read(path: Path) -> list[Result]:
    """The results that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key(result: Result) -> str:
    """What names a run."""
    parts = [result[name] for name in ("who", "method", "world", "seed", "k", "settings")]
    return json.dumps(parts, sort_keys=True)


def tuned(results: Iterable[Result], who: str, method: str) -> dict[str, Any] | None:
    """The settings with the lowest FVU at an L0 of K, of those that come near that L0; None where nothing was run."""
    of = [r for r in results if (r["who"], r["method"], r["k"]) == (who, method, K) and r["fvu_at_k"] is not None]
    of = [r for r in of if (r["world"], r["seed"]) == TUNING]
    near = [r for r in of if abs(r["l0"] - K) <= NEAR * K]
    return min(near or of, key=lambda r: r["fvu_at_k"])["settings"] if of else None


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % interval by Student's t; no ends where there is but one value."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(mean)
    arm = (_T[n - 2] if n - 2 < len(_T) else 2.0) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - arm, mean + arm)


def chosen(results: Sequence[Result]) -> dict[Side, dict[Pair, Result]]:
    """The results of each side's methods at the settings they are tuned to, by world and seed."""
    found: dict[Side, dict[Pair, Result]] = {}
    for who, method in dict.fromkeys((r["who"], r["method"]) for r in results):
        settings = tuned(results, who, method)
        of = [r for r in results if (r["who"], r["method"], r["k"], r["settings"]) == (who, method, K, settings)]
        if of:
            found[who, method] = {(r["world"], r["seed"]): r for r in of if r["fvu"] is not None}
    return found


def markdown(results: Sequence[Result]) -> str:
    """A table a world, and one of paired differences."""
    found = chosen(results)
    parts = [_world(found, world) for world in dict.fromkeys(r["world"] for r in results)]
    return "\n\n".join([*parts, _differences(found)])


def _world(found: dict[Side, dict[Pair, Result]], world: str) -> str:
    lines = [f"**{world}**", "", "| | method | FVU | FVU at L0 = k | L0 | MMCS | dead % | seeds | tuned to |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for (who, method), by_pair in sorted(found.items(), key=lambda one: (one[0][1], one[0][0])):
        of = [result for (name, _), result in by_pair.items() if name == world]
        if of:
            cells = [_text(interval([r[name] * (100 if name == "dead" else 1) for r in of])) for name in METRICS]
            told = {name: of[0]["settings"].get(name) for name in ("lr", "penalty", "normalise", "bandwidth")}
            settings = ", ".join(f"{name} {value:g}" for name, value in told.items() if value is not None)
            lines.append(f"| {' | '.join([who, method, *cells, str(len(of)), settings])} |")
    return "\n".join(lines)


def _differences(found: dict[Side, dict[Pair, Result]]) -> str:
    """Ours less the best tuned peer of the same method, over the worlds and seeds that both were run on."""
    lines = [
        "| ours less the best peer | peer | FVU | FVU at L0 = k | MMCS | dead % | pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for (who, method), mine in found.items():
        family = method.split("-")[0]  # `topk-matryoshka` is beside what the others have of TopK.
        rivals = {one: found[one] for one in found if one[0] not in NO_PEERS and one[1].split("-")[0] == family}
        best = _best(rivals, mine.keys())
        if who != "ours" or best is None:
            continue
        pairs = sorted(rivals[best].keys() & mine.keys())
        cells = []
        for name in ("fvu", "fvu_at_k", "mmcs", "dead"):
            units = 100 if name == "dead" else 1
            cells.append(_text(interval([units * (mine[pair][name] - rivals[best][pair][name]) for pair in pairs])))
        lines.append(f"| {' | '.join([method, ' '.join(best), *cells, str(len(pairs))])} |")
    return "\n".join(lines)


def _best(rivals: dict[Side, dict[Pair, Result]], pairs: Iterable[Pair]) -> Side | None:
    """The side of the lowest mean FVU, over those of the worlds and seeds that it was run on."""
    common = {side: [of[pair]["fvu_at_k"] for pair in pairs if pair in of] for side, of in rivals.items()}
    return min((side for side in common if common[side]), key=lambda side: statistics.fmean(common[side]), default=None)


def _text(found: Interval) -> str:
    digits = 1 if abs(found.value) >= 10 else 3
    ends = "" if found.low is None or found.high is None else f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return f"{found.value:.{digits}f}{ends}"


def draw(results: Sequence[Result], path: Path, world: str = "base") -> None:
    """The frontier of L0 and FVU, ours and the peers': a line a method, through its k, or its penalties at the one k.

    Whatever else is set is what the method is tuned to.
    """
    points: dict[str, list[Result]] = {}
    for r in results:
        if r["who"] in ("truth", "oracle") or r["world"] != world or r["fvu"] is None:
            continue
        best = tuned(results, r["who"], r["method"])
        if best is not None and {**r["settings"], "penalty": None} == {**best, "penalty": None}:
            points.setdefault(f"{r['who']} {r['method']}-{r['k']}/{r['settings'].get('penalty')}", []).append(r)
    evaluations = {}
    for name, of in points.items():
        metrics = {metric: interval([r[metric] for r in of]) for metric in ("l0", "fvu")}
        evaluations[name] = Evaluation(metrics, 0, 0, torch.zeros(0), world, "")
    axes = pareto(evaluations)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure = axes.figure
    assert figure is not None
    figure.set_size_inches(9, 5)
    figure.savefig(path, dpi=150)
