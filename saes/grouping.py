"""Which jobs of a run take their steps as one."""

from collections.abc import Sequence

import torch

from saes.axes import DEFAULTS
from saes.base import SAE
from saes.engine.stacking import Stack
from saes.records import Job, TrainConfig


def groups(jobs: Sequence[Job], config: TrainConfig, device: torch.device) -> list[tuple[Stack | None, list[int]]]:
    """Which jobs take their steps as one, each group with its stack, and which alone: None and all of them."""
    wanted = device.type == "cuda" if config.stack is None else config.stack
    alike: dict[object, list[int]] = {}
    for i, job in enumerate(jobs):
        alike.setdefault(_shape(job.sae) if wanted else None, []).append(i)
    single = alike.pop(None, []) + [i for members in alike.values() if len(members) == 1 for i in members]
    stacked = [members for members in alike.values() if len(members) > 1]
    found: list[tuple[Stack | None, list[int]]] = [(Stack([jobs[i].sae for i in own]), own) for own in stacked]
    return [*found, (None, single)]


def _shape(sae: SAE) -> tuple[object, ...] | None:
    """What SAEs that are stacked have in common; None for one that is more than a linear encoder and decoder."""
    own_pass = sae.axes != DEFAULTS or type(sae).encoded is not SAE.encoded
    return None if own_pass else (sae.by_feature, sae.d_in, sae.b_dec.dtype)
