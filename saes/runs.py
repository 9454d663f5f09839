"""The folder of a training run: what was asked, what was seen, checkpoints, results; never half written."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from interp.durability import TEMPORARY, AppendedFile, write_bytes, write_json
from interp.stores.stream_extent import Streamed
from interp.types import JSON
from saes import checkpoints
from saes.base import SAE
from saes.records import Metrics

if TYPE_CHECKING:
    from saes.training import Trainer

DONE = "DONE"
_BEFORE_RUN_YAML = {name + end for name in ("data.json", "env.json", "run.yaml") for end in ("", TEMPORARY)}


class Run:
    """A run's folder, open for writing. Made by `Run.open`."""

    def __init__(self, path: Path, metrics: AppendedFile) -> None:
        self.path, self._metrics = path, metrics

    @classmethod
    def open(cls, path: Path, trainer: "Trainer", *, resume: bool, overwrite: bool, exact: bool) -> "Run":
        """Start a run, or load a trainer with the last checkpoint of one.

        Raises:
            ValueError: If the folder is in use, or the run there differs in what it was asked, in data or machine.
        """
        asked, data, machine = described(trainer)
        length = 0
        if (path / "run.yaml").exists() and not overwrite:
            if not resume:
                raise ValueError(f"run is {path}, but a run is there already: use resume, overwrite or another folder.")
            _compare(path, asked, data, machine, exact)
            _clear(path)
            length = checkpoints.load(checkpoints.latest(path), trainer)
        else:
            path.mkdir(parents=True, exist_ok=True)
            _remove(path)
            write_json(path / "data.json", data)
            write_json(path / "env.json", machine)
            write_json(path / "run.yaml", asked)  # JSON is YAML. Last: a folder with run.yaml is a run.
        (path / DONE).unlink(missing_ok=True)
        return cls(path, AppendedFile(path / "metrics.jsonl", length=length))

    def record(self, metrics: list[Metrics]) -> None:
        """Append a line a job."""
        if metrics:
            self._metrics.write("".join(json.dumps(m.to_json()) + "\n" for m in metrics))

    def checkpoint(self, trainer: "Trainer") -> None:
        """Write everything that moves, then let older checkpoints go."""
        self._metrics.sync()
        checkpoints.save(self.path, trainer, metrics_bytes=self._metrics.length)

    def finish(self, trainer: "Trainer", trained: list[tuple[str, SAE]]) -> None:
        """Write the last checkpoint, the SAEs in the model's units, and the mark that all is there."""
        self.checkpoint(trainer)
        (self.path / "saes").mkdir(exist_ok=True)
        for name, sae in trained:
            sae.save(self.path / "saes" / f"{name}.safetensors")
        if trainer.failures:
            write_json(self.path / "failures.json", trainer.failures)
        write_bytes(self.path / DONE, b"")

    def close(self) -> None:
        """Let go of the file of metrics; what it holds beyond the last checkpoint is written again by a resume."""
        self._metrics.close()


def described(trainer: "Trainer") -> tuple[JSON, JSON, JSON]:
    """What was asked of a run, which data it reads, and what of the machine moves bits."""
    asked = {"config": vars(trainer.config), "jobs": [trainer.config.recorded(job) for job in trainer.jobs]}
    store = trainer.store
    rows = None if isinstance(store, Streamed) else len(store)
    data = {"site": str(store.site), "fingerprint": store.fingerprint, "rows": rows, "d_in": store.d_in}
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": str(trainer.device)}
    plain = json.loads(json.dumps([asked, data | {"provenance": store.provenance}, machine]))
    return plain[0], plain[1], plain[2]


def _compare(path: Path, asked: JSON, data: JSON, machine: JSON, exact: bool) -> None:
    for name, now, rule in (
        ("run.yaml", asked, "resume needs the same jobs and configuration"),
        ("data.json", data, "resume needs the same data"),
        ("env.json", machine, "to the last bit, resume needs the same threads, device and torch"),
    ):
        then = json.loads((path / name).read_text())
        found = difference(then, now)
        if found is None or (name == "env.json" and not exact):
            continue
        raise ValueError(
            f"{path} cannot be resumed: {rule}, but {found}. Set it back, "
            f"{'pass exact=False (--inexact) to go on all the same, ' if name == 'env.json' else ''}"
            "or start anew with overwrite."
        )


def difference(then: JSON, now: JSON, at: str = "") -> str | None:
    """The first value that differs, in words; what is not there is None."""
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if (found := difference(old, new, f"{at}{key}.")) is not None:
                return found
        elif old != new:
            return f"{at}{key} was {old!r} and is {new!r}"
    return None


def _remove(path: Path) -> None:
    """Empty a run's folder; whatever a kill leaves of it is a run that can be resumed, or removed again.

    Raises:
        ValueError: If there are files that no run makes.
    """
    if not (path / "run.yaml").exists() and any(p.name not in _BEFORE_RUN_YAML for p in path.iterdir()):
        raise ValueError(
            f"run is {path}, but the files there are not a run's: nothing is removed; choose another folder."
        )
    (path / DONE).unlink(missing_ok=True)
    for folder in reversed(checkpoints.found(path)):  # Newest first: what is left can be resumed from.
        checkpoints.remove(folder)
    for name in ("checkpoints", "saes"):
        shutil.rmtree(path / name, ignore_errors=True)
    _clear(path)
    for name in ("metrics.jsonl", "failures.json", "run.yaml"):
        (path / name).unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove what was being written, or removed, when a run was killed."""
    for leftover in [*path.glob(f"*{TEMPORARY}"), *path.glob(f"*/*{TEMPORARY}")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
