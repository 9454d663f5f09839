"""Train a grid of SAEs on one stream, judge them on held-out rows, draw what L0 buys in FVU.

unweave sweep grid.yaml --run runs/sweep

The file lists grids, {method: topk, arguments: {d_sae: 6144, k: [16, 32, 64]}, lr: null, penalties: null}, whose lists
are choices; each combination is trained once for each of `seeds`. Whatever else is in it is an option below.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from analyses.commands import devices, resolving, sweep_grids, sweep_tables
from analyses.commands.sweep_grids import Grid
from saes.records import TrainConfig

if TYPE_CHECKING:
    from interp.stores.disk import DiskStore
    from saes.settings import Setting

GO_ON = "run the same command again with --resume to go on from the last checkpoint"


@dataclass(frozen=True)
class Arguments:
    """What to train, on what, and what to judge it on.

    Args:
        store: The folder a harvest made.
        held_out: The folder of a harvest of other rows of the same site, to judge on.
        run: Folder for the groups of SAEs trained together, evaluations, sweep.json, sweep.csv and the figure.
        site: Site of the stores, where they hold several.
        grids: The SAEs.
        seeds: Of the initial directions; each setting is trained once for each.
        config: What all share.
        epochs: Train on this many passes over the store instead of on `tokens`.
        memory: GB that one group may take; 70 % of what is free by default.
        max_rows: First held-out rows to judge on; all by default.
        resamples: Draws of the bootstrap; 0 for no intervals.
        resume: Go on with the sweep that is there; what is finished is not done again.
        overwrite: Replace a sweep that is there.
        inexact: Resume under another device, thread count or torch, which changes the last bits.
        dry_run: Only print what would be trained, in which groups, and what it takes.
        quiet: No progress bar.
    """

    store: Path
    held_out: Path
    run: Path
    site: str | None = None
    grids: tyro.conf.Suppress[tyro.conf.Fixed[tuple[Grid, ...]]] = ()
    seeds: tuple[int, ...] = (0,)
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=lambda: TrainConfig(checkpoint_every=200))
    epochs: float | None = None
    memory: float | None = None
    max_rows: int | None = None
    resamples: int = 1000
    resume: bool = False
    overwrite: bool = False
    inexact: bool = False
    dry_run: bool = False
    quiet: bool = False


def adapted(plain: dict[str, Any]) -> dict[str, Any]:
    """The keys of a file, with this command's own default of one of `config`."""
    config = plain.get("config")
    return plain | {"config": {"checkpoint_every": 200} | config} if isinstance(config, dict) else plain


def read_flags(argv: Sequence[str], *, prog: str, description: str, default: Arguments) -> Arguments:
    """Read flags, after the file where the first word names one.

    Raises:
        ValueError: If a flag or a grid does not fit.
    """
    from analyses.commands import flags

    if argv and not argv[0].startswith("-"):
        if default.grids:
            raise ValueError(f"{argv[0]} is given besides --config: give one file.")
        found: Arguments = resolving.resolved(sys.modules[__name__], argv[1:], Path(argv[0]), prog=prog)
        return found
    read = flags.parse(Arguments, argv, prog=prog, description=description, default=default)
    if not read.grids:
        raise ValueError("grids must be given, in a file: `unweave sweep FILE.yaml --run DIR`.")
    settings(read)
    return read


def settings(arguments: Arguments) -> "list[Setting]":
    """Those of all grids, in order."""
    grids = enumerate(arguments.grids)
    return [setting for i, grid in grids for setting in sweep_grids.settings(grid, f"grids[{i}]")]


def run(arguments: Arguments) -> None:
    """Train and judge, print and draw what was found; or print what would be done."""
    from interp.stores.disk import DiskStore
    from saes.sweeping import sweep

    store = DiskStore(arguments.store, arguments.site)
    config = dataclasses.replace(arguments.config, device=devices.checked(arguments.config.device))
    if arguments.epochs is not None:
        config = dataclasses.replace(config, tokens=int(arguments.epochs * len(store)))
    memory = None if arguments.memory is None else arguments.memory * 1e9
    if arguments.dry_run:
        print(_foreseen(arguments, store, config, memory))
        return
    records = sweep(
        settings(arguments),
        store,
        DiskStore(arguments.held_out, str(store.site)),
        config,
        run=arguments.run,
        seeds=arguments.seeds,
        memory=memory,
        max_rows=arguments.max_rows,
        resamples=arguments.resamples,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        exact=not arguments.inexact,
        progress=not arguments.quiet,
    )
    _told(arguments.run, records)


def _foreseen(arguments: Arguments, store: "DiskStore", config: TrainConfig, memory: float | None) -> str:
    from saes import sweep_plan

    jobs = sweep_plan.planned(settings(arguments), store.d_in, config, arguments.seeds)
    groups = sweep_plan.grouped(jobs, config, memory)
    return sweep_tables.plan(groups, config, len(store))


def _told(run: Path, records: list[dict[str, Any]]) -> None:
    """Draw the figure, print the table; an SAE that failed makes the command fail, once all is written."""
    from analyses.plots.frontier import frontier, save
    from saes.sweep_results import summary

    lines = summary(records)
    if any(line["fvu"] is not None for line in lines):
        save(frontier(lines), run)
    print(sweep_tables.results(lines))
    print(f"{run}/sweep.json, sweep.csv, frontier.png, frontier.svg")
    failed = [record["failure"] for record in records if record["failure"]]
    if failed:
        raise FloatingPointError(f"{len(failed)} of {len(records)} SAEs failed: {failed[0]}.")
