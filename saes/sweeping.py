"""Sweeps: a grid of SAEs trained on one stream as many at a time as fit, judged on held-out rows."""

import json
from collections.abc import Sequence
from pathlib import Path

from interp.durability import make_folder, write_json
from interp.types import JSON, ActivationStore
from saes import sweep_plan, sweep_results
from saes.evaluation import evaluate
from saes.loading import load
from saes.records import TrainConfig
from saes.runs import DONE
from saes.settings import Setting, grid
from saes.sweep_plan import Planned
from saes.training import Trainer

__all__ = ["Setting", "grid", "sweep"]


def sweep(
    settings: Sequence[Setting],
    store: ActivationStore,
    held_out: ActivationStore,
    config: TrainConfig,
    *,
    run: Path | str,
    seeds: Sequence[int] = (0,),
    memory: float | None = None,
    max_rows: int | None = None,
    resamples: int = 1000,
    resume: bool = False,
    overwrite: bool = False,
    exact: bool = True,
    progress: bool = True,
) -> list[JSON]:
    """Train every setting once a seed and evaluate it.

    SAEs share runs, `run/groups/000` and so on, each one pass of the stream; one whose loss is not finite is dropped
    and the others go on. Killed at any moment and resumed, a sweep ends with the same bytes.

    Args:
        settings: What to train: `[*grid(TopK, d_sae=1024, k=[8, 16]), ...]`.
        store: Rows to train on.
        held_out: Other rows of the same site, to evaluate on.
        config: What all share.
        run: Folder of the sweep.
        seeds: Of the initial directions.
        memory: Bytes that a run may take, as estimated; 70 % of what is free by default.
        max_rows: First held-out rows to evaluate; None for all.
        resamples: Draws of the bootstrap; 0 for no intervals.
        resume: Go on with the sweep of the folder; what is finished is not done again.
        overwrite: Replace a sweep that is there.
        exact: Refuse to resume under another thread count or device.
        progress: Show progress bars.

    Returns:
        A flat record an SAE, such as a table takes for rows: name, setting, method, `file` in the folder, arguments,
        lr, seed, each metric with the ends of its 95 % interval; `failure` says why one was not trained to the end.
        `sweep.json` and `sweep.csv` in the folder hold the same; `saes.sweep_results.summary` makes a line a setting
        of them.

    Raises:
        ValueError: If there is nothing to train, a method refuses its arguments, one SAE takes more than `memory`, the
            stores do not fit, or the folder is in use.
    """
    _check(store, held_out)
    folder = Path(run)
    jobs = sweep_plan.planned(settings, store.d_in, config, seeds)
    data = {"store": store.fingerprint, "held_out": held_out.fingerprint, "max_rows": max_rows, "resamples": resamples}
    groups = sweep_plan.opened(folder, jobs, config, data, memory=memory, resume=resume, overwrite=overwrite)
    found: dict[str, JSON] = {}
    for number, group in enumerate(groups):
        own = folder / "groups" / f"{number:03}"
        failures = _trained(own, group, config, store, exact=exact, progress=progress)
        for job in group:
            judged = None
            if job.name not in failures:
                sae = own / "saes" / f"{job.name}.safetensors"
                judged = _judged(folder / "evaluations" / f"{job.name}.json", sae, held_out, max_rows, resamples)
            found[job.name] = _record(job, number, judged, failures.get(job.name))
    records = [found[job.name] for job in jobs]
    sweep_results.write(folder, records)
    return records


def _check(store: ActivationStore, held_out: ActivationStore) -> None:
    if store.fingerprint == held_out.fingerprint:
        raise ValueError("held_out holds the rows of store, but SAEs are judged on others: harvest another split.")
    if store.d_in != held_out.d_in:
        raise ValueError(
            f"held_out has width {held_out.d_in} at {held_out.site}, but store has {store.d_in} at {store.site}: "
            "harvest the same site."
        )


def _trained(
    run: Path, group: Sequence[Planned], config: TrainConfig, store: ActivationStore, *, exact: bool, progress: bool
) -> dict[str, str]:
    """Train a group, unless it was trained already; why some of it failed, by name."""
    if not (run / DONE).exists():
        jobs = [job.job(store.d_in) for job in group]
        Trainer(jobs, config, store, run=run, resume=True, exact=exact, progress=progress, on_failure="drop").run()
    failures = run / "failures.json"
    return json.loads(failures.read_text()) if failures.exists() else {}


def _judged(path: Path, sae: Path, held_out: ActivationStore, max_rows: int | None, resamples: int) -> JSON:
    """What an evaluation found, now or before."""
    if not path.exists():
        make_folder(path.parent)
        write_json(path, evaluate(load(sae), held_out, max_rows=max_rows, resamples=resamples).to_json())
    found: JSON = json.loads(path.read_text())
    return found


def _record(job: Planned, group: int, judged: JSON | None, failure: str | None) -> JSON:
    setting = job.setting
    about: JSON = {"name": job.name, "setting": job.place, "method": setting.method.__name__, "family": setting.family}
    about |= {"label": job.label, "file": None if failure else f"groups/{group:03}/saes/{job.name}.safetensors"}
    record = about | setting.choices() | {"seed": job.seed, "group": group, "failure": failure}
    for metric, interval in (judged or {"metrics": {}})["metrics"].items():
        record[metric] = interval["value"]
        if interval["low"] is not None:
            record |= {f"{metric}_low": interval["low"], f"{metric}_high": interval["high"]}
    return record
