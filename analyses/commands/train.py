"""Train SAEs on a harvested store: one from flags, or several on one stream from a file.

unweave train --store runs/store --run runs/first --method topk --d-sae 6144 --k 32

A file lists jobs: [{method: topk, name: small, lr: null, arguments: {d_sae: 6144, k: 32}, penalties: null}, ...]; the
run.yaml of an earlier run is such a file too. The options of a method show with --method NAME --help.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from analyses.commands import devices, job_flags, jobs, logs
from analyses.commands.jobs import JobSpec
from analyses.commands.plain import MisfitError, unfinished
from saes.records import Metrics, TrainConfig

GO_ON = "run the same command again with --resume to go on from the last checkpoint"


@dataclass(frozen=True)
class Arguments:
    """What to train, and on what.

    Args:
        store: The folder a harvest made.
        run: Folder for metrics, checkpoints and trained SAEs.
        site: Site of the store, where it holds several.
        jobs: The SAEs.
        config: What all jobs share.
        epochs: Train on this many passes over the store instead of on `tokens`.
        log: Also send metrics to tensorboard or wandb; they are in RUN/metrics.jsonl in any case.
        resume: Go on from the run's last checkpoint.
        overwrite: Replace a run that is there.
        inexact: Resume under another device, thread count or torch, which changes the last bits.
        quiet: No progress bar.
    """

    store: Path
    run: Path
    site: str | None = None
    jobs: tyro.conf.Suppress[tyro.conf.Fixed[tuple[JobSpec, ...]]] = ()
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=lambda: TrainConfig(checkpoint_every=200))
    epochs: float | None = None
    log: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    inexact: bool = False
    quiet: bool = False


def adapted(plain: dict[str, Any]) -> dict[str, Any]:
    """The keys of a file; a run's own record is read as well."""
    listed = plain.get("jobs")
    config = plain.get("config")
    found = dict(plain)
    if isinstance(listed, list):
        try:
            found["jobs"] = [jobs.from_record(entry) for entry in listed]
        except ValueError as error:
            raise MisfitError(str(error)) from error
    if isinstance(config, dict):
        found["config"] = {"checkpoint_every": 200} | config
    return found


def read_flags(argv: Sequence[str], *, prog: str, description: str, default: Arguments) -> Arguments:
    """Read flags, those of the chosen method among them.

    Raises:
        ValueError: If a flag does not fit, or no job is asked for.
    """
    known = tuple(jobs.completed(spec, f"jobs[{i}]") for i, spec in enumerate(default.jobs))
    default = unfinished(Arguments, vars(default) | {"jobs": known})
    read, listed = job_flags.read(Arguments, argv, prog=prog, description=description, default=default)
    if not listed:
        raise ValueError(
            f"--method must be given (one of {', '.join(jobs.method_names())}), or jobs in the file of --config."
        )
    return dataclasses.replace(read, jobs=tuple(jobs.completed(spec, spec.method) for spec in listed))


def run(arguments: Arguments) -> None:
    """Train, and say where the SAEs are and what their last batch gave."""
    from interp.stores.disk import DiskStore
    from saes.training import Trainer

    store = DiskStore(arguments.store, arguments.site)
    config = dataclasses.replace(arguments.config, device=devices.checked(arguments.config.device))
    if arguments.epochs is not None:
        config = dataclasses.replace(config, tokens=int(arguments.epochs * len(store)))
    last: dict[str, Metrics] = {}
    with logs.opened(arguments.log, arguments.run) as observers:
        trainer = Trainer(
            [jobs.job(spec, store.d_in) for spec in arguments.jobs],
            config,
            store,
            run=arguments.run,
            resume=arguments.resume and (arguments.run / "run.yaml").exists(),
            overwrite=arguments.overwrite,
            exact=not arguments.inexact,
            progress=not arguments.quiet,
            observers=[*observers, lambda found: last.update({metrics.job: metrics for metrics in found})],
        )
        trainer.run()
    for entry in trainer.jobs:
        path = arguments.run / "saes" / f"{entry.name}.safetensors"
        print(f"{path}{_told(last.get(str(entry.name)))}")


def _told(metrics: Metrics | None) -> str:
    if metrics is None:
        return ": was finished already"
    return f": last batch FVU {metrics.fvu:.4f}, L0 {metrics.l0:.1f}, dead {metrics.dead:.1%}"
