"""What a sweep prints: what it would train, and what it found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saes.records import TrainConfig
    from saes.sweep_plan import Planned


def plan(groups: "Sequence[Sequence[Planned]]", config: "TrainConfig", rows: int) -> str:
    """A line an SAE, and what the groups take.

    Args:
        groups: The SAEs that are trained together.
        config: How.
        rows: Of the store.
    """
    from saes import footprints

    table = [["group", "SAE", "method", "arguments", "seed", "alone"]]
    peaks = []
    for number, group in enumerate(groups):
        peaks.append(footprints.peak([job.footprint for job in group], config.device))
        for job in group:
            alone = _size(footprints.peak([job.footprint], config.device))
            about = [job.name, job.setting.method.__name__, job.label or "-", str(job.seed), alone]
            table.append([f"{number:03}", *about])
    passes = config.steps * config.batch_size / rows
    jobs, several = sum(map(len, groups)), len(groups) > 1
    return "\n".join(
        [
            *_aligned(table),
            f"{_many(jobs, 'SAE')} in {_many(len(groups), 'group')}, {'at most ' if several else ''}about "
            f"{_size(max(peaks))}{' each' if several else ''}: {_many(len(groups), 'time')} {config.steps:,} steps of "
            f"{config.batch_size:,} rows, {passes:.3g} passes over the store",
        ]
    )


def results(lines: Sequence[dict[str, Any]]) -> str:
    """A line a setting, a star where no other is better.

    Args:
        lines: What `saes.sweep_results.summary` makes of a sweep.
    """
    table = [["", "method", "arguments", "L0", "FVU", "dead", "seeds"]]
    for line in lines:
        about = ["*" if line["frontier"] else "", line["method"], line["label"] or "-"]
        values = [_value(line, "l0", ".4g"), _value(line, "fvu", ".4f"), _value(line, "dead", ".1%")]
        failed = f", {line['failed']} failed" if line["failed"] else ""
        table.append([*about, *values, f"{line['seeds']}{failed}"])
    several = any(line["seeds"] > 1 for line in lines)
    ends = "least and greatest of the seeds" if several else "95 % interval over examples"
    return "\n".join([*_aligned(table), f"[{ends}]; * no other has as few latents and a lower FVU"])


def _value(line: dict[str, Any], metric: str, form: str) -> str:
    if line[metric] is None:
        return "-"
    low, high = line[f"{metric}_low"], line[f"{metric}_high"]
    ends = "" if low is None or low == high else f" [{low:{form}}, {high:{form}}]"
    return f"{line[metric]:{form}}{ends}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
