"""Checkpoints: everything that moves, one folder each, written whole; `load` continues to the bit."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from interp.durability import TEMPORARY, write_bytes, write_json, writing_folder
from interp.stores.stream_extent import Streamed
from interp.types import JSON
from saes.normalising import Normaliser
from saes.states import TrainState

if TYPE_CHECKING:
    from saes.training import Trainer

VERSION = 3


def save(run: Path, trainer: "Trainer", *, metrics_bytes: int) -> None:
    """Write `checkpoints/step-N` and remove all but the newest few."""
    folder = run / "checkpoints" / f"step-{trainer.steps}"
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():  # Else the run was killed right after it; equal to the bit.
        tensors, counters = _state(trainer)
        about: JSON = {"version": VERSION, "steps": trainer.steps, "metrics_bytes": metrics_bytes}
        about |= {"scale": trainer.normaliser.scale, "target_scale": trainer.normaliser.target_scale, "jobs": counters}
        if isinstance(trainer.store, Streamed):
            about["stream"] = trainer.store.state(trainer.steps * trainer.config.batch_size)
        with writing_folder(folder) as temporary:
            write_bytes(temporary / "tensors.safetensors", safetensors.torch.save(tensors))
            write_json(temporary / "state.json", about)
    for old in found(run)[: -trainer.config.keep_checkpoints]:
        remove(old)


def remove(folder: Path) -> None:
    """Remove a checkpoint; a kill in between leaves no half of one under its name."""
    leaving = folder.with_name(folder.name + TEMPORARY)
    shutil.rmtree(leaving, ignore_errors=True)
    folder.rename(leaving)
    shutil.rmtree(leaving)


def latest(run: Path) -> Path | None:
    """The newest checkpoint; None where a run was killed before its first."""
    folders = found(run)
    return folders[-1] if folders else None


def load(folder: Path | None, trainer: "Trainer") -> int:
    """Set a trainer to a checkpoint.

    Returns:
        Bytes of metrics.jsonl that were written when the checkpoint was.

    Raises:
        ValueError: If the checkpoint is damaged or of another version.
    """
    if folder is None:
        return 0
    try:
        about = json.loads((folder / "state.json").read_text())
        tensors = safetensors.torch.load_file(folder / "tensors.safetensors")
        if about["version"] != VERSION:
            raise ValueError(f"its version is {about['version']}, this unweave reads {VERSION}")
        _restore(trainer, tensors, about["jobs"])
        trainer.normaliser = Normaliser(
            tensors["normaliser.mean"], about["scale"], None, tensors.get("normaliser.target"), about["target_scale"]
        )
        if isinstance(trainer.store, Streamed):
            trainer.store.restore(about["stream"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be resumed from ({error}): remove it to resume from an older one."
        ) from error
    trainer.steps = about["steps"]
    return int(about["metrics_bytes"])


def found(run: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = [p for p in run.glob("checkpoints/step-*") if not p.name.endswith(TEMPORARY)]
    return sorted(folders, key=lambda p: int(p.name.removeprefix("step-")))


def _state(trainer: "Trainer") -> tuple[dict[str, Tensor], dict[str, JSON]]:
    """All tensors by name, and all plain counters, of every job."""
    normaliser = trainer.normaliser
    tensors: dict[str, Tensor] = {"normaliser.mean": normaliser.mean}
    if normaliser.target_mean is not None:
        tensors["normaliser.target"] = normaliser.target_mean
    counters: dict[str, JSON] = {}
    for job, state, optimizer in zip(trainer.jobs, trainer.states, trainer.optimizers, strict=True):
        named = {f"{job.name}/sae/{name}": value for name, value in job.sae.state_dict().items()}
        parameters = dict(job.sae.named_parameters())
        for name, parameter in parameters.items():
            named |= {f"{job.name}/adam/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
        values = {f.name: getattr(state, f.name) for f in dataclasses.fields(TrainState)}
        named |= {f"{job.name}/state/{n}": value for n, value in values.items() if isinstance(value, Tensor)}
        counters[job.name or ""] = {n: value for n, value in values.items() if not isinstance(value, Tensor)}
        tensors |= named
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, counters


@torch.no_grad()
def _restore(trainer: "Trainer", tensors: dict[str, Tensor], counters: dict[str, JSON]) -> None:
    for i, (job, optimizer) in enumerate(zip(trainer.jobs, trainer.optimizers, strict=True)):
        prefix = f"{job.name}/sae/"
        job.sae.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        for name, parameter in job.sae.named_parameters():
            start = f"{job.name}/adam/{name}/"
            moments = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            optimizer.state[parameter] = {key: _like(value, parameter) for key, value in moments.items()}
        state = f"{job.name}/state/"
        moved: dict[str, Any] = {
            n.removeprefix(state): t.to(trainer.device) for n, t in tensors.items() if n.startswith(state)
        }
        trainer.states[i] = TrainState(**moved, **counters[job.name or ""])


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor with the strides of its parameter: fused Adam walks both in the order of memory."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter).copy_(value)
