import pytest
import torch
from torch import Tensor

from interp.models.synthetic import SyntheticWorld
from saes.base import SAE
from saes.engine.dense import DenseLatents
from saes.evaluation import evaluate
from saes.metrics.mmcs import mmcs
from saes.penalties.aux_k import AuxK
from saes.penalties.aux_zipf import AuxZipf
from saes.penalties.base import Step
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer


def _slow(step: Step, penalty: AuxZipf, k_aux: int) -> Tensor:
    """The largest pre-activations of each row among needy features predict what its reconstruction left."""
    sae, x = step.sae, step.x
    densities = step.density.tolist()
    ranked = sorted(range(len(densities)), key=lambda i: -densities[i])
    law = {i: (rank + penalty.shift) ** -penalty.zipf for rank, i in enumerate(ranked, start=1)}
    scale = sum(densities) / sum(law.values())
    needy = {i: 0.0 if step.dead[i] else densities[i] / (scale * law[i]) for i in ranked if scale}
    needy = {i: part for i, part in needy.items() if part < 0.5} if scale else {i: 0.0 for i in ranked if step.dead[i]}
    looked_at = sorted(needy, key=lambda i: needy[i])[: 4 * k_aux]
    fires = step.latents.detach().dense() != 0
    total = torch.zeros((), dtype=x.dtype)
    for row, error, fired in zip(x, (x - step.recon).detach(), fires, strict=True):
        free = [i for i in looked_at if step.dead[i] or not fired[i]]
        pre_acts = {i: (row - sae.b_dec) @ sae.W_enc[:, i] + sae.b_enc[i] for i in free}
        best = sorted(free, key=lambda i: float(pre_acts[i].detach()), reverse=True)[:k_aux]
        predicted = sum((torch.relu(pre_acts[i]) * sae.W_dec[i] for i in best), torch.zeros_like(error))
        total = total + (error - predicted).square().sum()
    return penalty.coefficient * total / len(x)


@pytest.fixture
def sae(randomised) -> SAE:
    return randomised(TopK(d_in=6, d_sae=24, k=3).double())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _with(step: Step, density: Tensor) -> Step:
    object.__setattr__(step, "density", density)
    return step


DENSITY = torch.rand(24, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) ** 2
DEAD = torch.arange(24) % 6 == 0


@pytest.mark.parametrize("k_aux", [1, 3, None, 50])
@pytest.mark.parametrize("known", [True, False], ids=["densities", "none yet"])
def test_aux_zipf_is_the_slow_one(k_aux: int | None, known: bool, sae: SAE, x: Tensor, step_of) -> None:
    penalty = AuxZipf(coefficient=0.5, k_aux=k_aux, zipf=0.8, shift=1.0)
    step = _with(step_of(sae, x, dead=DEAD), DENSITY * ~DEAD * known)
    found, expected = penalty(step), _slow(step, penalty, k_aux or 3)  # Half the width where it is not given.
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(sae.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    as_dense = _with(step_of(sae, x, DenseLatents(step.latents.dense()), step.recon, dead=DEAD), step.density)
    assert float(penalty(as_dense).detach()) == pytest.approx(found.item(), rel=1e-12)


def test_zero_where_all_fire_as_often_as_the_law_expects(sae: SAE, x: Tensor, step_of) -> None:
    alike = torch.full((24,), 0.25, dtype=torch.float64)
    step = _with(step_of(sae, x, dead=torch.zeros(24, dtype=torch.bool)), alike)
    assert float(AuxZipf(zipf=1.0)(step).detach()) > 0
    penalty = AuxZipf(zipf=0.0)(step)
    found = torch.autograd.grad(penalty + 0 * step.recon.sum(), list(sae.parameters()))
    assert float(penalty) == 0
    assert not any(grad.any() for grad in found)


def test_dead_alone_where_no_other_is_needy_it_is_aux_k(sae: SAE, x: Tensor, step_of) -> None:
    step = _with(step_of(sae, x, dead=DEAD), torch.zeros(24))
    assert float(AuxZipf()(step).detach()) == pytest.approx(float(AuxK()(step).detach()), rel=1e-12)


@pytest.mark.parametrize("wrong", [{"coefficient": -0.1}, {"k_aux": 0}, {"zipf": -1.0}, {"shift": -1.0}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"AuxZipf has coefficient .* or penalties=\(\) for none"):
        AuxZipf(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_a_world_of_zipfs_law_hardly_any_dies_and_more_is_recovered_than_with_aux_k(seed: int) -> None:
    """MMCS .94 against .91, and .77 and a third dead without either (seed 0)."""
    world, samples = SyntheticWorld(zipf=1.2, seed=seed), 1_000_000
    store, held = world.store(samples), world.store(16_384, offset=samples)
    config = TrainConfig(tokens=samples, batch_size=1024, seed=seed)
    dead, similarity = {}, {}
    for name, penalties in {"none": (), "AuxK": (AuxK(),), "AuxZipf": (AuxZipf(),)}.items():
        job = Job(TopK(d_in=64, d_sae=256, k=5, seed=seed), lr=1e-2, penalties=penalties)
        (trained,) = Trainer([job], config, store, progress=False).run()
        dead[name] = evaluate(trained, held, resamples=0)["dead"].value
        similarity[name] = float(mmcs(world.features, trained.W_dec.detach()))
    print(f"\nseed {seed}: dead {dead}, MMCS {similarity}")
    assert dead["AuxZipf"] <= 1 / 256
    assert dead["none"] > 0.1
    assert similarity["AuxZipf"] > similarity["AuxK"] > similarity["none"]
