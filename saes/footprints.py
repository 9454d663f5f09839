"""How much memory training takes: what is there, what a job holds, and what a run peaks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from saes.base import SAE
from saes.engine.dense import breaks_even
from saes.engine.selection import CHUNK_ENTRIES, chunk_rows
from saes.records import TrainConfig

_BATCHES = 6  # Of `n x d_in`: rows, centred, reconstruction, error and their gradients.
_DENSE = 12  # Of `n x d_sae`, measured on a CPU at 512 x 8192 in rows of 4096: 5 for ReLU, 11.3 for JumpReLU.
_CODE = 64  # Bytes of a code: value, index, their order by feature, gradients.
_WRITTEN = 9  # Times the weights, measured: the moments' copies in order of rows, each tensor's bytes, and all of them.

_MEMORY, _GROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Footprint:
    """Bytes that one job takes.

    Args:
        held: Between steps: weights and Adam's averages.
        step: More while it takes a step: gradients and what the two passes make.
        written: More while a checkpoint of it is written, on the host.
    """

    held: int
    step: int
    written: int


def footprint(sae: SAE, config: TrainConfig) -> Footprint:
    """Estimate what an SAE takes to train; dense where nothing fixes how many latents a row keeps."""
    weights = sum(4 * parameter.numel() for parameter in sae.parameters())
    rows = _BATCHES * 4 * config.batch_size * sae.d_in
    device, k = torch.device(config.device), getattr(sae, "k", None)
    if k is None or config.path == "dense" or (config.path == "auto" and breaks_even(k / sae.d_sae, device)):
        passes = _DENSE * 4 * config.batch_size * sae.d_sae
    else:
        chunk = max(CHUNK_ENTRIES, chunk_rows(sae.d_sae, device) * sae.d_sae)
        passes = 4 * min(chunk, config.batch_size * sae.d_sae) + _CODE * config.batch_size * k
    return Footprint(3 * weights, weights + rows + passes, _WRITTEN * weights)


def peak(jobs: Sequence[Footprint], device: str) -> int:
    """Bytes that a run of these jobs takes on its device: on a CPU they step one after another, on a GPU as stacks."""
    held = sum(job.held for job in jobs)
    if torch.device(device).type == "cpu":
        return held + max(max(job.step for job in jobs), sum(job.written for job in jobs))
    return held + sum(job.step for job in jobs)


def available(device: str) -> int:
    """Bytes that are free on a device: of a GPU, or of the machine, its limits for this process counted.

    Raises:
        ValueError: If the system does not say.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError) as error:
        raise ValueError("memory is not given, and this system does not say what is free: give memory.") from error
    return min([free, *_left()])


def _left() -> list[int]:
    """What each limit on this process' group leaves, where there is one (cgroups 2 and 1); files read do not count."""
    found = []
    for limit, used, cached in (
        (_GROUPS / "memory.max", _GROUPS / "memory.current", "inactive_file"),
        (_GROUPS / "memory/memory.limit_in_bytes", _GROUPS / "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if limit.exists() and (most := limit.read_text().strip()) != "max":
            statistics = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
            found.append(int(most) - int(used.read_text()) + int(statistics[cached]))
    return found
