"""The dictionaries that `judgement` judges: every method at one width, one L0 and one number of rows, and baselines."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from interp.types import ActivationStore
from saes.abs_topk import AbsTopK
from saes.base import SAE
from saes.baselines.base import Fitted
from saes.batch_topk import BatchTopK
from saes.feature_choice import FeatureChoice
from saes.gated import Gated
from saes.gradient import GradientTopK
from saes.group_max import GroupMax
from saes.jumprelu import JumpReLU
from saes.mass_topk import MassTopK
from saes.matching_pursuit import MatchingPursuit
from saes.multi_topk import MultiTopK
from saes.mutual_choice import MutualChoice
from saes.penalties.aux_k import AuxK
from saes.penalties.p_annealing import PAnnealing
from saes.penalties.tanh import Tanh
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

Made = SAE | Fitted
_BEGUN = 0.9
"""Part of the rows that the BatchTopK sees with which matching pursuit begins: a step of pursuit takes 30 of its."""
_POINTS = 1024
"""Rows of data whose mixtures archetypal decoders are: as many as latents would make a step five times as long."""


@dataclass(frozen=True)
class Bench:
    """What all methods share: the rows and the size; the same rows with gradients, for those who read them."""

    store: ActivationStore
    d_sae: int
    l0: int
    tokens: int
    batch: int
    precision: Literal["float32", "bfloat16"] | None = None
    gradients: ActivationStore | None = None

    @property
    def prefixes(self) -> list[int]:
        """Of a Matryoshka."""
        return [self.d_sae // 16, self.d_sae // 8, self.d_sae // 4, self.d_sae]

    def made(self, method: type[SAE], seed: int, arguments: Mapping[str, Any]) -> SAE:
        """An SAE before its training, with the bench's L0 where it is an argument."""
        k = {"k": self.l0} if "k" in inspect.signature(method).parameters else {}
        return method(d_in=self.store.d_in, d_sae=self.d_sae, seed=seed, **k, **arguments)

    def trained(self, job: Job, *, share: float = 1.0, order: int = 0) -> SAE:
        """Train on a share of the rows; `order` names their shuffle, which all seeds share."""
        config = TrainConfig(
            tokens=int(share * self.tokens), batch_size=self.batch, seed=order, precision=self.precision
        )
        (found,) = Trainer([job], config, self.store, progress=False).run()
        return found


Make = Callable[[Bench, int], Made]
Own = Callable[[Bench], dict[str, Any]]


def _sae(
    method: type[SAE],
    own: Own = lambda _: {},
    *,
    penalties: tuple | None = None,
    target: bool = False,
    data: bool = False,
) -> Make:
    """An SAE: its own arguments, its penalties, whether its L0 is steered, whether it begins at rows of data."""

    def make(bench: Bench, seed: int) -> SAE:
        sae = bench.made(method, seed, own(bench))
        if data:
            sae.initialise(bench.store)
        return bench.trained(Job(sae, penalties=penalties, target_l0=float(bench.l0) if target else None))

    return make


def _gradient(bench: Bench, seed: int) -> SAE:
    if bench.gradients is None:
        raise ValueError("the rows have no gradients, and without them it is TopK: give --gradients")
    return replace(bench, store=bench.gradients).trained(Job(bench.made(GradientTopK, seed, {})))


def _pursuit(bench: Bench, seed: int) -> SAE:
    """Matching pursuit that begins with the decoder of a BatchTopK: both together see as many rows as the others."""
    begun = bench.trained(Job(bench.made(BatchTopK, seed, {})), share=_BEGUN)
    pursuit = MatchingPursuit.of(begun, bench.store, k=bench.l0)
    return bench.trained(Job(pursuit), share=1 - _BEGUN, order=1)


def _fitted(name: str, own: Own = lambda _: {}, *, seeded: bool = True) -> Make:
    """A baseline by the name of its file and class."""
    file, _, kind = name.partition(".")
    fit = getattr(importlib.import_module(f"saes.baselines.{file}"), kind).fit

    def make(bench: Bench, seed: int) -> Fitted:
        found: Fitted = fit(bench.store, **({"seed": seed} if seeded else {}), **own(bench))
        return found

    return make


def _largest(bench: Bench) -> dict[str, Any]:
    return {"k": bench.l0}


def _centres(bench: Bench) -> dict[str, Any]:
    size = max(bench.batch, 4 * bench.d_sae)
    return {"d_sae": bench.d_sae, "batch_size": size, "steps": max(1, bench.tokens // size)}


def _nested(bench: Bench) -> dict[str, Any]:
    return {"prefixes": bench.prefixes}


def _archetypes(bench: Bench) -> dict[str, Any]:
    return {"parametrization": {"class": "Archetypal", "points": min(_POINTS, bench.d_sae)}}


_BASELINES: dict[str, Make] = {
    "raw": _fitted("identity.Identity", seeded=False),
    "raw-largest": _fitted("identity.Identity", _largest, seeded=False),
    "pca": _fitted("pca.PCA", seeded=False),
    "pca-largest": _fitted("pca.PCA", _largest, seeded=False),
    "random": _fitted("random.Random", lambda bench: {"d_sae": bench.d_sae, "k": bench.l0}),
}
"""`largest` keeps as many codes a row as the SAEs do."""

_SLOW_BASELINES: dict[str, Make] = {
    "ica": _fitted("ica.ICA", _largest),
    "k-means": _fitted("k_means.KMeans", _centres),
    # Codes are found part by part: as many parts as latents would take hours.
    "nmf": _fitted("nmf.NMF", lambda bench: {"d_sae": 64, "k": bench.l0, "rows": 8192, "iterations": 100}),
}

SAES: dict[str, Make] = {
    "topk": _sae(TopK),
    "batchtopk": _sae(BatchTopK),
    "matryoshka": _sae(BatchTopK, _nested),
    "jumprelu": _sae(JumpReLU, target=True),
    "topk-matryoshka": _sae(TopK, _nested),
    "abstopk": _sae(AbsTopK),
    "groupmax": _sae(GroupMax),
    "mutualchoice": _sae(MutualChoice),
    "featurechoice": _sae(FeatureChoice),
    "featurechoice-zipf": _sae(FeatureChoice, lambda _: {"zipf": 1.0}),
    "masstopk": _sae(MassTopK, lambda bench: {"k_max": 2 * bench.l0}, target=True),
    "multitopk": _sae(MultiTopK),
    "gated": _sae(Gated, target=True),
    "relu-l1": _sae(ReLU, target=True),
    "relu-p-annealing": _sae(ReLU, penalties=(PAnnealing(end=0.8),), target=True),
    "jumprelu-tanh": _sae(JumpReLU, penalties=(Tanh(), AuxK()), target=True),
    "topk-simvq": _sae(TopK, lambda _: {"parametrization": {"class": "LinearBasis"}}),
    "topk-archetypal": _sae(TopK, _archetypes, data=True),
    "gradienttopk": _gradient,
    "matchingpursuit": _pursuit,
}

METHODS: dict[str, Make] = _BASELINES | SAES | _SLOW_BASELINES
FIXED = ("raw", "raw-largest", "pca", "pca-largest")
"""What no seed changes."""
