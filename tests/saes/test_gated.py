import pytest
import torch
from torch import Tensor

from saes.gated import Gated
from saes.penalties.base import reconstruction
from saes.penalties.gate_aux import GateAux
from saes.penalties.gate_l1 import GateL1
from saes.relu import ReLU


def _slow(sae: Gated, x: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 5 to 7, an entry at a time: the codes, and ReLU(pi) for the loss."""
    codes, gates = [], []
    for row in x:
        for i in range(sae.d_sae):
            gate = (row - sae.b_dec) @ sae.W_enc[:, i] + sae.b_enc[i]
            W_mag = sae.W_enc[:, i] * sae.r_mag[i].exp()
            size = torch.relu((row - sae.b_dec) @ W_mag + sae.b_mag[i])
            codes.append(size if gate > 0 else 0 * size)
            gates.append(torch.relu(gate))
    return tuple(torch.stack(part).view(len(x), sae.d_sae) for part in (codes, gates))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sae(randomised) -> Gated:
    return randomised(Gated(d_in=6, d_sae=24).double()).train()


def test_codes_are_the_slow_ones(sae: Gated, x: Tensor) -> None:
    codes, gates = _slow(sae, x)
    assert ((codes == 0) & (gates > 0)).any()  # The gate is open, and the size is not positive.
    assert ((codes == 0) & (gates == 0)).any()
    for training in (True, False):
        torch.testing.assert_close(sae.train(training).encode(x).dense(), codes, rtol=1e-12, atol=1e-12)


def test_the_loss_is_equation_8_and_so_are_its_gradients(sae: Gated, x: Tensor, step_of) -> None:
    codes, gates = _slow(sae, x)
    frozen = gates @ sae.W_dec.detach() + sae.b_dec.detach()
    terms = (
        (x - codes @ sae.W_dec - sae.b_dec).square().sum() / len(x),
        0.3 * (gates * sae.W_dec.norm(dim=1)).sum() / len(x),
        (x - frozen).square().sum() / len(x),
    )
    step, parameters = step_of(sae, x), list(sae.parameters())
    for ours, theirs in zip((reconstruction(step), GateL1(0.3)(step), GateAux()(step)), terms, strict=True):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
        found, expected = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in (ours, theirs)
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_second_reconstruction_moves_the_gate_and_nothing_else(sae: Gated, x: Tensor, step_of) -> None:
    GateAux()(step_of(sae, x)).backward()
    assert {name for name, p in sae.named_parameters() if p.grad is not None and p.grad.any()} == {"W_enc", "b_enc"} | {
        "b_dec"  # As what is taken off the input: its gradient as the decoder's bias is held back.
    }
    torch.testing.assert_close(sae.b_dec.grad, -(sae.W_enc @ sae.b_enc.grad), rtol=1e-12, atol=1e-12)


def test_the_reconstruction_does_not_move_the_gates_bias(sae: Gated, x: Tensor, step_of) -> None:
    reconstruction(step_of(sae, x)).backward()
    assert not sae.b_enc.grad.any()  # Exactly: what the codes bring and what they take off cancel.


def test_without_a_scale_and_with_equal_biases_it_is_relu(sae: Gated, x: Tensor) -> None:
    with torch.no_grad():
        sae.r_mag.zero_()
        sae.b_mag.copy_(sae.b_enc)
    relu = ReLU(d_in=6, d_sae=24).double()
    relu.load_state_dict(sae.state_dict(), strict=False)
    torch.testing.assert_close(sae.encode(x).dense(), relu.encode(x).dense(), rtol=1e-12, atol=1e-12)


def test_folding_a_normaliser_scales_gate_and_sizes(sae: Gated, x: Tensor) -> None:
    codes, recon = sae.eval().encode(x).dense(), sae(x)
    sae.rescale(4.0)
    torch.testing.assert_close(sae.encode(x / 4).dense(), codes / 4, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sae(x / 4), recon / 4, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_codes_shrink_less_than_those_of_l1(rows) -> None:
    """The paper's claim: at the same penalty the sizes are free, and the reconstruction is nearer."""
    from interp.stores.memory import MemoryStore
    from saes.penalties.l1 import L1
    from saes.training import Job, TrainConfig, train

    jobs = [
        Job(Gated(d_in=6, d_sae=32), penalties=(GateL1(2.0), GateAux())),
        Job(ReLU(d_in=6, d_sae=32), penalties=(L1(2.0),)),
    ]
    config = TrainConfig(tokens=150 * 128, batch_size=128)
    x, shrinkage = rows(500, seed=1), []
    for sae in train(jobs, MemoryStore.from_values(rows(2000)), config, progress=False):
        recon, rest = (sae(x) - sae.b_dec).detach(), (x - sae.b_dec).detach()
        shrinkage.append(float((rest * recon).sum() / recon.square().sum()))
    assert shrinkage[1] > 1.1
    assert abs(shrinkage[0] - 1) < (shrinkage[1] - 1) / 2


def test_the_default_penalties() -> None:
    assert Gated(d_in=6, d_sae=64).default_penalties() == (GateL1(), GateAux())
