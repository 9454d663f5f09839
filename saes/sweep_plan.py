"""What a sweep trains, in which groups, and its folder."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.durability import TEMPORARY, write_json
from interp.types import JSON
from saes import checkpoints, footprints, settings
from saes.footprints import Footprint
from saes.records import Job, TrainConfig
from saes.runs import difference
from saes.settings import Setting

FILE = "plan.json"
_SHARE = 0.7  # Of what is free: estimates err, and others need memory too.


@dataclass(frozen=True)
class Planned:
    """One SAE of a sweep.

    Args:
        name: Names its files and metrics.
        place: Name of its setting.
        label: What sets its setting apart.
        setting: What it is.
        seed: Of its initial directions.
        footprint: What it takes to train.
    """

    name: str
    place: str
    label: str
    setting: Setting
    seed: int
    footprint: Footprint

    def job(self, d_in: int) -> Job:
        """What is trained."""
        return self.setting.job(d_in, self.seed, self.name)

    def to_json(self) -> JSON:
        """Plain values."""
        penalties = self.setting.penalties
        listed = None if penalties is None else [{"class": type(p).__name__, **vars(p)} for p in penalties]
        about: JSON = {"class": self.setting.method.__name__, "arguments": dict(self.setting.arguments)}
        about |= {"lr": self.setting.lr, "penalties": listed, "target_l0": self.setting.target_l0}
        return {**about, "seed": self.seed, "setting": self.place}


def planned(asked: Sequence[Setting], d_in: int, config: TrainConfig, seeds: Sequence[int]) -> list[Planned]:
    """Every SAE of a sweep: the settings one after another, each with all seeds.

    Raises:
        ValueError: If there are none, or a method refuses its arguments.
    """
    for name, given in (("settings", asked), ("seeds", seeds)):
        if not given or (name == "seeds" and len(set(seeds)) < len(seeds)):
            raise ValueError(f"{name} is {list(given)}, but a sweep needs one or more, each once: give such.")
    found: list[Planned] = []
    known: dict[tuple[type, str], Footprint] = {}
    varied = settings.varying(asked)
    for place, setting in settings.named(asked).items():
        shape = (setting.method, json.dumps(setting.arguments, sort_keys=True))
        if shape not in known:
            try:
                known[shape] = footprints.footprint(setting.job(d_in, seeds[0], place).sae, config)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
        about = place, setting.label(varied), setting
        found += [Planned(f"{place}-seed{seed}", *about, seed, known[shape]) for seed in seeds]
    return found


def grouped(jobs: Sequence[Planned], config: TrainConfig, memory: float | None = None) -> list[list[Planned]]:
    """Share jobs out over as few runs as fit: the largest first, each into the first run that has room.

    Args:
        jobs: What is trained.
        config: How.
        memory: Bytes that a run may take; a share of what is free by default.

    Raises:
        ValueError: If one takes more alone.
    """
    most = memory or _SHARE * footprints.available(config.device)
    groups: list[list[Planned]] = []
    for job in sorted(jobs, key=lambda job: -job.footprint.held):
        if (alone := footprints.peak([job.footprint], config.device)) > most:
            raise ValueError(
                f"{job.name} takes about {alone / 1e9:.2f} GB to train, but memory is {most / 1e9:.2f} GB: give more "
                "memory, or a smaller d_sae or batch_size."
            )
        fitting = (g for g in groups if footprints.peak([j.footprint for j in (*g, job)], config.device) <= most)
        group = next(fitting, None)
        if group is None:
            groups.append([job])
        else:
            group.append(job)
    order = {job.name: i for i, job in enumerate(jobs)}
    return [sorted(group, key=lambda job: order[job.name]) for group in groups]


def opened(
    path: Path,
    jobs: Sequence[Planned],
    config: TrainConfig,
    data: Mapping[str, Any],
    *,
    memory: float | None,
    resume: bool,
    overwrite: bool,
) -> list[list[Planned]]:
    """Start a sweep's folder, or find in it the groups that were planned when it was started.

    Raises:
        ValueError: If the folder is in use, or the sweep there was asked for something else.
    """
    about = {
        "config": dataclasses.asdict(config),
        "jobs": {job.name: job.to_json() for job in jobs},
        "data": dict(data),
    }
    about = json.loads(json.dumps(about))
    if (path / FILE).exists() and not overwrite:
        if not resume:
            raise ValueError(f"run is {path}, but a sweep is there already: use resume, overwrite or another folder.")
        then = json.loads((path / FILE).read_text())
        groups = then.pop("groups")
        if (found := difference(then, about)) is not None:
            raise ValueError(
                f"{path} cannot be resumed: resume needs the same sweep, but {found}. Set it back, or start anew with "
                "overwrite."
            )
        known = {job.name: job for job in jobs}
        return [[known[name] for name in names] for names in groups]
    fresh = grouped(jobs, config, memory)
    _empty(path)
    write_json(path / FILE, about | {"groups": [[job.name for job in group] for group in fresh]})
    return fresh


def _empty(path: Path) -> None:
    """Remove a sweep's runs and evaluations, so that whatever a kill leaves can be resumed, or removed again."""
    path.mkdir(parents=True, exist_ok=True)
    if not (path / FILE).exists() and (others := [p.name for p in path.iterdir() if p.name != FILE + TEMPORARY]):
        raise ValueError(f"run is {path}, but {others[0]} there is not a sweep's: choose another folder.")
    for name in ("evaluations", "groups"):
        shutil.rmtree(path / (name + TEMPORARY), ignore_errors=True)  # Of a removal that was killed.
        if (path / name).exists():
            checkpoints.remove(path / name)
    for file in [*path.glob("sweep.*"), *path.glob("frontier.*")]:
        file.unlink()
