import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from saes.base import SAE
from saes.penalties.aux_k import AuxK
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer


def _slow(sae: SAE, x: Tensor, recon: Tensor, dead: list[int], k_aux: int, coefficient: float) -> Tensor:
    """Appendix A.2: the top-k_aux dead latents of each row predict the error that the row's reconstruction left."""
    total = torch.zeros((), dtype=x.dtype)
    for row, error in zip(x, (x - recon).detach(), strict=True):
        pre_acts = {i: (row - sae.b_dec) @ sae.W_enc[:, i] + sae.b_enc[i] for i in dead}
        best = sorted(dead, key=lambda i: float(pre_acts[i].detach()), reverse=True)[:k_aux]
        predicted = sum(torch.relu(pre_acts[i]) * sae.W_dec[i] for i in best)
        total = total + (error - predicted).square().sum()
    return coefficient * total / len(x)


@pytest.fixture
def sae(randomised) -> SAE:
    return randomised(TopK(d_in=6, d_sae=16, k=3).double())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k_aux", [1, 2, 5, 50, None])
def test_aux_k_is_the_slow_one(k_aux: int | None, sae: SAE, x: Tensor, step_of) -> None:
    dead = [0, 3, 4, 9, 15]
    step = step_of(sae, x, dead=torch.isin(torch.arange(16), torch.tensor(dead)))
    found = AuxK(coefficient=0.5, k_aux=k_aux)(step)
    expected = _slow(sae, x, step.recon, dead, k_aux or 3, 0.5)  # Half the width where it is not given.
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(sae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_reach_dead_latents_only(sae: SAE, x: Tensor, step_of) -> None:
    dead = torch.arange(16) < 4
    AuxK(k_aux=4)(step_of(sae, x, dead=dead)).backward()
    for moved in (sae.W_enc.grad.T.abs().sum(1), sae.W_dec.grad.abs().sum(1), sae.b_enc.grad.abs()):
        assert (moved[dead] > 0).all()
        assert (moved[~dead] == 0).all()


def test_zero_while_nothing_is_dead(sae: SAE, x: Tensor, step_of) -> None:
    step = step_of(sae, x, dead=torch.zeros(16, dtype=torch.bool))
    penalty = AuxK()(step)
    assert float(penalty) == 0
    (penalty + 0 * step.recon.sum()).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in sae.parameters())


def test_dead_latents_come_back_to_life(rows) -> None:
    store = MemoryStore.from_values(rows(2000, 8))
    dead = {}
    for name, penalties in (("with", (AuxK(),)), ("without", ())):
        sae = TopK(d_in=8, d_sae=32, k=3)
        with torch.no_grad():
            sae.W_enc[:, :16] *= 0.02  # Too small to be among the largest ever again.
        config = TrainConfig(tokens=150 * 128, batch_size=128, dead_tokens=512, log_every=150)
        trainer = Trainer([Job(sae, lr=1e-2, penalties=penalties)], config, store)
        trainer.run()
        dead[name] = float((trainer.states[0].silent > 512).float().mean())
    assert dead["without"] >= 0.5
    assert dead["with"] <= dead["without"] / 2


@pytest.mark.parametrize("wrong", [{"coefficient": -0.1}, {"k_aux": 0}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"AuxK has coefficient .* or penalties=\(\) for none"):
        AuxK(**wrong)
