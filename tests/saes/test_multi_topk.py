import pytest
import torch
from torch import Tensor

from saes.multi_topk import MultiTopK
from saes.penalties.aux_k import AuxK
from saes.penalties.base import reconstruction
from saes.penalties.multi_k import MultiK
from saes.topk import TopK


def _slow(sae: MultiTopK, x: Tensor, k: int) -> Tensor:
    """TopK(W_enc (x - b_pre) + b_enc) after a ReLU, a row at a time."""
    rows = []
    for row in x:
        pre_acts = (row - sae.b_dec) @ sae.W_enc + sae.b_enc
        kept = sorted(range(sae.d_sae), key=lambda f: float(pre_acts[f].detach()), reverse=True)[:k]
        rows.append(torch.stack([torch.relu(value) if f in kept else 0 * value for f, value in enumerate(pre_acts)]))
    return torch.stack(rows)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 3, 9, 24])  # Of the last two, 4 k is all there are.
def test_the_loss_is_that_of_k_and_an_eighth_of_that_of_4_k(k: int, x: Tensor, randomised, step_of) -> None:
    sae = randomised(MultiTopK(d_in=6, d_sae=24, k=k).double()).train()
    expected = torch.zeros((), dtype=torch.float64)
    for number, weight in ((k, 1.0), (4 * k, 0.125)):
        recon = _slow(sae, x, number) @ sae.W_dec + sae.b_dec
        expected = expected + weight * (recon - x).square().sum() / len(x)
    step = step_of(sae, x)
    torch.testing.assert_close(step.latents.dense(), _slow(sae, x, k), rtol=1e-12, atol=1e-12)
    found = reconstruction(step) + MultiK()(step)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(sae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_second_reconstruction_trains_what_the_codes_leave_out(x: Tensor, randomised, step_of) -> None:
    """Encoder and decoder rows of features that are among the 4 k largest and never among the k largest."""
    sae = randomised(MultiTopK(d_in=6, d_sae=24, k=1).double()).train()
    step = step_of(sae, x)
    further = (_slow(sae, x, 4) > 0).any(0) & ~(_slow(sae, x, 1) > 0).any(0)
    assert further.sum() > 3
    MultiK()(step).backward()
    for moved in (sae.W_enc.grad.T.abs().sum(1), sae.W_dec.grad.abs().sum(1), sae.b_enc.grad.abs()):
        assert (moved[further] > 0).all()


@torch.no_grad()
def test_evaluation_is_top_k(x: Tensor, randomised) -> None:
    ours = randomised(MultiTopK(d_in=6, d_sae=24, k=3).double())
    theirs = TopK(d_in=6, d_sae=24, k=3).double()
    theirs.load_state_dict(ours.state_dict())
    found, expected = ours.eval().encode(x), theirs.eval().encode(x)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.indices, expected.indices)
    assert ours.codes(x).k == 3
    assert torch.equal(ours.train().encode(x).dense(), expected.dense())


def test_equal_pre_activations_do_not_make_codes_more_than_k(step_of) -> None:
    sae = MultiTopK(d_in=6, d_sae=24, k=2)
    with torch.no_grad():
        sae.W_enc.copy_(torch.ones(6, 24))
    step = step_of(sae, torch.ones(5, 6))
    assert (step.latents.dense().count_nonzero(dim=1) == 2).all()
    assert (step.latents.with_values(step.extras["further"]).dense().count_nonzero(dim=1) == 6).all()


def test_the_default_penalties() -> None:
    assert MultiTopK(d_in=6, d_sae=64).default_penalties() == (AuxK(), MultiK())


def test_impossible_k_is_refused() -> None:
    with pytest.raises(ValueError, match=r"k is 0, but it is a whole number in 1\.\.d_sae = 64: choose"):
        MultiTopK(d_in=6, d_sae=64, k=0)


@pytest.mark.slow
def test_codes_stay_of_use_where_more_than_k_are_kept(rows) -> None:
    """The paper's claim, a TopK is no better, or worse, with more latents than it was trained for."""
    from interp.stores.memory import MemoryStore
    from saes.training import TrainConfig, train

    sizes, config = {"d_in": 12, "d_sae": 48}, TrainConfig(tokens=150 * 128, batch_size=128)
    store, x = MemoryStore.from_values(rows(2000, 12)), rows(500, 12, seed=1)
    errors = []
    for sae in train([MultiTopK(**sizes, k=3), TopK(**sizes, k=3)], store, config, progress=False):
        wider = TopK(**sizes, k=12).eval()
        wider.load_state_dict(sae.state_dict())
        errors.append([float((x - one(x).detach()).square().sum()) for one in (sae, wider)])
    (ours, ours_wider), (theirs, theirs_wider) = errors
    assert ours < 1.3 * theirs
    assert ours_wider < 0.7 * ours
    assert ours_wider < 0.5 * theirs_wider
