"""A target L0 is reached and kept by every method whose L0 is not fixed by construction."""

import inspect

import pytest
import torch

from interp.models.synthetic import SyntheticWorld
from saes.controlling import excess
from saes.gated import Gated
from saes.jumprelu import JumpReLU
from saes.loading import methods
from saes.mass_topk import MassTopK
from saes.matching_pursuit import MatchingPursuit
from saes.penalties.aux_k import AuxK
from saes.penalties.l0 import L0
from saes.penalties.p_annealing import PAnnealing
from saes.penalties.tanh import Tanh
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

JOBS = {
    "relu": lambda: Job(ReLU(d_in=32, d_sae=64), target_l0=4.0),
    "p-annealing": lambda: Job(ReLU(d_in=32, d_sae=64), penalties=(PAnnealing(end=0.8),), target_l0=4.0),
    "gated": lambda: Job(Gated(d_in=32, d_sae=64), target_l0=4.0),
    "jumprelu": lambda: Job(JumpReLU(d_in=32, d_sae=64), target_l0=4.0),
    "jumprelu-tanh": lambda: Job(JumpReLU(d_in=32, d_sae=64), penalties=(Tanh(), AuxK()), target_l0=4.0),
    "matching pursuit": lambda: Job(MatchingPursuit(d_in=32, d_sae=64, k=8), target_l0=4.0),
    "mass-topk": lambda: Job(MassTopK(d_in=32, d_sae=64, k_max=16), target_l0=4.0),
}


def test_every_method_whose_l0_is_not_fixed_by_k_is_here() -> None:
    pursuit = "MatchingPursuit"  # Its k is but a limit.
    free = {name for name, kind in methods().items() if "k" not in inspect.signature(kind).parameters}
    assert free | {pursuit} == {type(job().sae).__name__ for job in JOBS.values()}


@pytest.mark.parametrize(
    "name", [name if name == "jumprelu" else pytest.param(name, marks=pytest.mark.slow) for name in JOBS]
)
def test_l0_is_within_five_per_cent_of_its_target_and_stays_there(name: str) -> None:
    world = SyntheticWorld(n_features=64, d_in=32, mean_l0=4.0, zipf=0.5)
    store, held_out = world.store(120_000), world.store(4096, offset=120_000)
    config = TrainConfig(tokens=120_000, batch_size=256, log_every=1)
    trainer = Trainer([JOBS[name]()], config, store, progress=False)
    seen = [trainer.step(batch, log=True)[0].l0 for batch in trainer._batches()]
    for start in range(round(0.8 * len(seen)), len(seen) - 20, 20):
        assert sum(seen[start : start + 20]) / 20 == pytest.approx(4.0, rel=0.05), start
    sae = trainer.export()[0][1]
    assert sae.encode(held_out.span(0, 4096).values).values.numel() / 4096 == pytest.approx(4.0, rel=0.05)


def test_the_excess_is_the_logarithm_cut_off() -> None:
    found = [float(excess(torch.tensor(l0), 4.0)) for l0 in (4.0, 8.0, 400.0, 0.0)]
    assert found == pytest.approx([0.0, 0.6931, 1.0, -1.0], abs=1e-4)


def test_what_cannot_be_moved_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing moves the L0 of this TopK: where k fixes it, give k"):
        Job(TopK(d_in=6, d_sae=64), target_l0=4.0)
    with pytest.raises(ValueError, match="target_l0 is 9.0, but MassTopK keeps at most k_max = 8: raise k_max"):
        Job(MassTopK(d_in=6, d_sae=64, k_max=8), target_l0=9.0)
    with pytest.raises(ValueError, match="target_l0 is 64.0, but an L0 is between 0 and d_sae = 64"):
        Job(JumpReLU(d_in=6, d_sae=64), target_l0=64.0)
    assert Job(JumpReLU(d_in=6, d_sae=64), penalties=(L0(),), target_l0=4.0).to_json()["target_l0"] == 4.0
