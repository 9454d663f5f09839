"""The worlds on which dictionaries are judged, and how: rows of known features, for one pass, and rows held out."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.synthetic import SyntheticWorld
from interp.stores.memory import MemoryStore
from interp.types import Directions, Latents, Site
from saes.base import SAE
from saes.evaluation import evaluate
from saes.metrics.mmcs import mmcs

SAMPLES, HELD_OUT, BATCH = 1_000_000, 16_384, 1024

# 16 frequent features with 4 rarer ones each, that fire only where their parent does.
_CHILDREN = {parent: [parent + 16 * nth for nth in range(1, 5)] for parent in range(16)}
WORLDS: dict[str, dict[str, Any]] = {
    "base": {},
    "correlated": {"correlation": 0.5},
    "hierarchical": {"children_of": _CHILDREN},
    "offset": {"offset": 5.0},
    "noisy": {"noise": 0.1},
}
"""What differs from 256 unit features in 64 dimensions, Zipf 0.8, mean L0 5, magnitudes |N(1, .25)|, noise .02."""


@dataclasses.dataclass(frozen=True)
class Ground:
    """A world of one seed, its rows, and the rows that nobody trains on."""

    world: SyntheticWorld
    rows: MemoryStore
    held_out: MemoryStore
    seed: int

    @classmethod
    def of(cls, name: str, seed: int) -> Self:
        """The rows of a world by name; the seed draws directions and rows."""
        world = SyntheticWorld(**WORLDS[name], seed=seed)
        return cls(world, world.store(SAMPLES), world.store(HELD_OUT, offset=SAMPLES), seed)

    def write(self, path: Path) -> None:
        """The rows in the order in which a `Trainer` of this seed sees them, as raw float32."""
        steps = SAMPLES // BATCH
        shape = (steps * BATCH, self.world.d_in)
        file = np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
        batches = self.rows.batches(BATCH, seed=self.seed)
        for step, batch in zip(range(steps), batches, strict=False):
            file[step * BATCH : (step + 1) * BATCH] = batch.values
        file.flush()


class Linear:
    """A linear encoder, a choice of codes, a decoder: what every library's SAE comes down to.

    Args:
        W_enc: Encoder.
        b_enc: Its bias.
        b_pre: What is taken off a row before it is encoded.
        W_dec: Decoder.
        b_dec: Its bias.
        k: Codes a row, the largest; None where thresholds choose.
        threshold: What a code must exceed.
    """

    signed, trainable = False, False
    site: Site | None = None
    labels: Mapping[int, str] = {}
    provenance: Mapping[str, Any] = {}

    def __init__(
        self,
        W_enc: Float[Tensor, "d_in d_sae"],
        b_enc: Float[Tensor, " d_sae"],
        b_pre: Float[Tensor, " d_in"],
        W_dec: Float[Tensor, "d_sae d_in"],
        b_dec: Float[Tensor, " d_in"],
        *,
        k: int | None = None,
        threshold: Float[Tensor, " d_sae"] | None = None,
    ) -> None:
        assert (k is None) != (threshold is None)
        self.W_enc, self.b_enc, self.b_pre, self.W_dec, self.b_dec = W_enc, b_enc, b_pre, W_dec, b_dec
        self.k, self.threshold = k, threshold
        self.d_sae, self.d_in = W_dec.shape

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a peer's runner handed back."""
        with np.load(path, allow_pickle=False) as file:
            parts = {name: torch.from_numpy(file[name]) for name in file.files}
        k = parts.pop("k", None)
        return cls(**parts, k=None if k is None else int(k))

    @classmethod
    def of(cls, sae: SAE) -> Self | None:
        """The same of an SAE of ours that has thresholds; None if it has none."""
        if hasattr(sae, "log_threshold"):
            threshold = sae.log_threshold.detach().exp()
        elif hasattr(sae, "threshold"):
            threshold = torch.full((sae.d_sae,), float(sae.threshold))
        else:
            return None
        parts = (sae.W_enc, sae.b_enc, sae.b_dec, sae.W_dec, sae.b_dec)
        return cls(*(part.detach() for part in parts), threshold=threshold)

    def encode(self, x: Float[Tensor, "n d_in"]) -> Latents:
        pre_acts = torch.addmm(self.b_enc, x - self.b_pre, self.W_enc)
        if self.k is None:
            return Latents.from_dense(pre_acts.relu() * (pre_acts > self.threshold))
        values, chosen = pre_acts.topk(self.k, dim=1)
        return Latents.from_dense(torch.zeros_like(pre_acts).scatter(1, chosen, values.relu()))

    def decode(self, latents: Latents) -> Float[Tensor, "n d_in"]:
        return latents.dense() @ self.W_dec + self.b_dec

    def at(self, l0: float, rows: Float[Tensor, "n d_in"]) -> "Linear":
        """Thresholds times the one factor that gives this L0 on some rows, so that methods are compared at one L0."""
        pre_acts = torch.addmm(self.b_enc, rows - self.b_pre, self.W_enc)
        # An entry is kept while the factor is below its ratio to the threshold.
        ratios = torch.where(pre_acts > 0, pre_acts / self.threshold.clamp(min=1e-6), 0.0).flatten()
        factor = ratios.topk(round(l0 * len(rows))).values[-1]
        return Linear(
            self.W_enc,
            self.b_enc,
            self.b_pre,
            self.W_dec,
            self.b_dec,
            threshold=self.threshold.clamp(min=1e-6) * factor,
        )


def judge(found: Directions, ground: Ground, l0: float) -> dict[str, float | None]:
    """Metrics on the held-out rows.

    `fvu_at_k` is the FVU with thresholds scaled, by what training rows say, to an L0 of `l0`; the FVU itself where
    there are none.
    """
    metrics = evaluate(found, ground.held_out, resamples=0).metrics
    values = {name: metrics[name].value for name in ("fvu", "l0", "dead")}
    values["mmcs"] = mmcs(ground.world.features, found.W_dec)
    linear = found if isinstance(found, Linear) else Linear.of(found) if isinstance(found, SAE) else None
    values["fvu_at_k"] = values["fvu"]
    if linear is not None and linear.threshold is not None:
        matched = linear.at(l0, ground.rows.span(0, HELD_OUT).values)
        values["fvu_at_k"] = evaluate(matched, ground.held_out, resamples=0)["fvu"].value
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
