import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.engine import selection
from saes.engine.stacking import Stack
from saes.evaluation import evaluate
from saes.gradient import GSAE, GradientTopK
from saes.normalising import Normaliser
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer


def _draw(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _rows(values: Tensor, grads: Tensor | None) -> Activations:
    n = torch.arange(len(values))
    return Activations(values, n, torch.zeros_like(n), grads)


@torch.no_grad()
def _slow(sae: GradientTopK, x: Tensor, grads: Tensor) -> Tensor:
    """Row by row: rank by z (1 + beta gate), keep z."""
    codes = torch.zeros(len(x), sae.d_sae, dtype=x.dtype)
    for i, (row, grad) in enumerate(zip(x, grads, strict=True)):
        z = torch.relu((row - sae.b_dec) @ sae.W_enc + sae.b_enc)
        effect = torch.stack([(direction @ grad).abs() for direction in sae.W_dec])
        gate = effect / grad.norm() if grad.any() else torch.zeros_like(effect)
        best = sorted(range(sae.d_sae), key=lambda j: float(z[j] * (1 + sae.beta * gate[j])), reverse=True)[: sae.k]
        codes[i, best] = z[best]
    return codes


@pytest.fixture
def sae(randomised) -> GradientTopK:
    return randomised(GradientTopK(d_in=6, d_sae=40, k=4, beta=2.0).double())


@pytest.mark.parametrize("beta", [0.0, 0.5, 10.0])
@pytest.mark.parametrize("chunk", [512, 7])
def test_the_choice_is_the_slow_one(beta: float, chunk: int, randomised, monkeypatch) -> None:
    monkeypatch.setattr(selection, "CHUNK_ROWS", chunk)
    sae = randomised(GSAE(d_in=6, d_sae=40, k=4, beta=beta).double())
    x, grads = _draw(30), _draw(30, seed=1)
    grads[3] = 0
    for training in (True, False):
        codes = sae.train(training).encode(x, grads).dense()
        torch.testing.assert_close(codes, _slow(sae, x, grads), rtol=1e-12, atol=1e-12)
    assert (codes != sae.encode(x).dense()).any() == (beta > 0)  # Some gates matter.


def test_with_beta_0_it_is_topk_to_the_bit_and_so_is_its_training(rows) -> None:
    store = MemoryStore(_rows(rows(1000), rows(1000, seed=1)))
    config = TrainConfig(tokens=30 * 64, batch_size=64, dead_tokens=64)
    trained = [
        Trainer([Job(sae, lr=1e-2)], config, store, progress=False).run()[0]
        for sae in (TopK(d_in=6, d_sae=32, k=3), GradientTopK(d_in=6, d_sae=32, k=3, beta=0.0))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(sae.state_dict().values() for sae in trained), strict=True))
    assert not torch.equal(trained[0].W_enc, TopK(d_in=6, d_sae=32, k=3).W_enc)


def test_a_loss_feels_dropped_latents_by_their_score(randomised) -> None:
    """Ablation costs a linear loss |z W_dec g|; by the gate alone, the worst of what is dropped is least."""
    sae = randomised(GradientTopK(d_in=6, d_sae=9, k=3, beta=1e12).double())
    x, grads = _draw(20), _draw(20, seed=1)
    with torch.no_grad():
        z = torch.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc)
        losses = ((z @ sae.W_dec) * grads).sum(1)
        for j in range(9):
            ablated = ((z * (torch.arange(9) != j)) @ sae.W_dec * grads).sum(1)
            torch.testing.assert_close(losses - ablated, z[:, j] * (grads @ sae.W_dec[j]))
    costs, kept = (z * (grads @ sae.W_dec.T)).abs(), sae.encode(x, grads).dense() != 0
    for row, own in zip(costs, kept, strict=True):
        worst = min(
            max(float(row[j]) for j in range(9) if j not in some) for some in itertools.combinations(range(9), 3)
        )
        assert float(row[~own].max()) == pytest.approx(worst, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_units_change_no_choice(scale: float, sae: GradientTopK) -> None:
    x, grads = _draw(50), _draw(50, seed=1)
    whole = sae.encode(x, grads)
    assert torch.equal(sae.encode(x, 1e6 * grads).indices, whole.indices)
    normaliser = Normaliser(torch.zeros(6), scale)
    normaliser.enter(sae)
    batch = normaliser(_rows(x, grads))
    assert torch.equal(sae.encode(batch.values, batch.grads).indices, whole.indices)


def test_no_gradient_flows_through_the_score(sae: GradientTopK) -> None:
    x, grads = _draw(30), _draw(30, seed=1)
    support = (_slow(sae, x, grads) != 0).double()
    z = torch.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc)
    dense = ((z * support) @ sae.W_dec + sae.b_dec - x).square().sum()
    sparse = (sae.decode(sae.codes(x, grads)) - x).square().sum()
    parameters = list(sae.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in (sparse, dense)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_where_gradients_come_from(randomised) -> None:
    x, grads = _draw(30), _draw(30, seed=1)
    auto, act, grad = (randomised(GradientTopK(d_in=6, d_sae=40, k=4, beta=5.0).double()).eval() for _ in range(3))
    act.selection, grad.selection = "act", "grad"
    with warnings.catch_warnings(action="error"):
        assert torch.equal(auto.encode(x).indices, act.encode(x, grads).indices)
    assert torch.equal(auto.encode(x, grads).indices, grad.encode(x, grads).indices)
    assert not torch.equal(auto.encode(x, grads).indices, act.encode(x).indices)
    with pytest.raises(ValueError, match=r"selection is 'grad', but the rows have no gradients: harvest with a score"):
        grad.encode(x)
    with pytest.warns(UserWarning, match=r"GradientTopK with beta 5\.0 trains on rows without gradients, as a TopK"):
        auto.train().encode(x)


def test_a_stack_selects_by_gradient_too(randomised) -> None:
    saes = [randomised(GradientTopK(d_in=6, d_sae=40, k=4, beta=beta)) for beta in (1.0, 5.0)]
    x, grads = _draw(30).float(), _draw(30, seed=1).float()
    alone = [sae.train().codes(x, grads).indices for sae in saes]
    together = Stack(saes).encode(x, grads, [None, None])
    assert all(torch.equal(one.latents.indices, own) for one, own in zip(together, alone, strict=True))


def test_it_is_evaluated_in_both_ways(randomised, rows) -> None:
    x, grads = rows(200), rows(200, seed=1)
    sae = randomised(GradientTopK(d_in=6, d_sae=40, k=4, beta=5.0)).eval()
    both, plain = evaluate(sae, MemoryStore(_rows(x, grads))), evaluate(sae, MemoryStore(_rows(x, None)))
    assert set(both.metrics) == set(plain.metrics) | {f"{name}_by_gradient" for name in plain.metrics}
    assert both["fvu"] == plain["fvu"]
    recon = sae.decode(sae.encode(x, grads)).detach()
    fvu = (x - recon).square().sum() / (x - x.mean(0)).square().sum()
    assert both["fvu_by_gradient"].value == pytest.approx(float(fvu), rel=1e-5)
    assert both["fvu_by_gradient"].value != both["fvu"].value
    sae.selection = "grad"
    assert evaluate(sae, MemoryStore(_rows(x, grads)))["fvu"] == both["fvu_by_gradient"]


def test_a_quiet_feature_that_matters_is_kept_before_a_loud_one_that_does_not() -> None:
    """One latent for two features that fire together: what a readout of the quiet one loses."""
    directions = torch.linalg.qr(_draw(6).float())[0]
    codes = torch.rand(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1, 0, 0, 0, 0])
    x, readout = codes @ directions, directions[1]
    error = {}
    for beta in (0.0, 0.5, 3.0, 10.0):
        sae = GradientTopK(d_in=6, d_sae=6, k=1, beta=beta).eval()
        with torch.no_grad():
            sae.W_enc.copy_(directions.T)
            sae.W_dec.copy_(directions)
            recon = sae.decode(sae.encode(x, readout.expand_as(x)))
        error[beta] = float(((recon - x) @ readout).square().mean() / (x @ readout).var())
    assert sorted(error.values(), reverse=True) == list(error.values())
    assert error[3.0] < 0.3 * error[0.0]


def test_a_loss_that_feels_few_latents_does_not_choose_them_by_noise() -> None:
    """A feature that fires, and one that does not but for a hundredth of its size and is all that the loss feels."""
    sae = GradientTopK(d_in=6, d_sae=6, k=1).eval()
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(6))
        sae.W_dec.copy_(torch.eye(6))
    x = torch.tensor([[1.0, 0.01, 0, 0, 0, 0], [1.0, 0.5, 0, 0, 0, 0]])
    assert sae.encode(x, torch.eye(6)[1].expand(2, 6)).indices.tolist() == [0, 1]


def _readout_errors(
    codes: Tensor, directions: Tensor, readout: Tensor, grads: Callable[[Tensor], Tensor], **sizes: int
) -> tuple[float, float]:
    """What a readout loses, over its variance, with TopK and with g-SAE as it comes; 5,000 rows are held out."""
    n = len(codes) - 5000
    draw = torch.Generator().manual_seed(sizes["seed"] + 100)
    x = codes @ directions + 0.02 * torch.randn(len(codes), directions.shape[1], generator=draw)
    slopes, held = grads(x), slice(n, None)
    store = MemoryStore(_rows(x[:n], slopes[:n]))
    config = TrainConfig(tokens=n, batch_size=1024, seed=sizes["seed"])
    jobs = [Job(method(d_in=x.shape[1], **sizes), lr=1e-2) for method in (TopK, GradientTopK)]
    topk, gradient = (Trainer([job], config, store, progress=False).run()[0] for job in jobs)
    with torch.no_grad():
        recons = topk(x[held]), gradient.decode(gradient.encode(x[held], slopes[held]))
        spread = (x[held] @ readout.T).var(dim=0).sum()
        lost = [float(((recon - x[held]) @ readout.T).square().sum(1).mean() / spread) for recon in recons]
    print(f"\n{sizes}: error of the readout {lost[0]:.3f} (TopK), {lost[1]:.3f} (g-SAE)")
    return lost[0], lost[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("quiet", [1, 4])
def test_trained_from_scratch_the_readout_of_quiet_features_loses_far_less(quiet: int, seed: int) -> None:
    """64 loud features of norm 2, 1.2 of them in a row, and quiet ones of norm 1: error .7 (TopK) against .15.

    One quiet feature, with the gradient of its logit; or four, with that of half their readouts' sum of squares.
    """
    draw = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(80, 80, generator=draw))[0][: 64 + quiet]
    sizes = torch.tensor([2.0] * 64 + [1.0] * quiet)
    often = torch.tensor([1.2 / 64] * 64 + [0.1 if quiet == 1 else 0.04] * quiet)
    fires = torch.rand(205_000, 64 + quiet, generator=draw) < often
    codes = fires * (1 + 0.25 * torch.randn(fires.shape, generator=draw)).abs() * sizes
    readout = directions[64:]
    topk, gradient = _readout_errors(
        codes,
        directions,
        readout,
        lambda x: readout.expand_as(x).contiguous() if quiet == 1 else (x @ readout.T) @ readout,
        d_sae=128,
        k=1,
        seed=seed,
    )
    assert topk > 0.6
    assert gradient < 0.3 * topk


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_superposition_a_readout_of_quiet_features_loses_less(seed: int) -> None:
    """32 loud and 32 quiet features in 32 dimensions, 3.8 firing, 2 latents: error .34 (TopK) against .26."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(64, 32, generator=draw), dim=1)
    fires = torch.rand(82_000, 64, generator=draw) < 0.06
    codes = (
        fires * (1 + 0.2 * torch.randn(fires.shape, generator=draw)) * torch.tensor([2.0, 1.0]).repeat_interleave(32)
    )
    readout = (torch.linspace(-1.5, 1.5, 32) @ directions[32:])[None]
    topk, gradient = _readout_errors(
        codes, directions, readout, lambda x: readout.expand_as(x).contiguous(), d_sae=128, k=2, seed=seed
    )
    assert gradient < 0.85 * topk


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"beta is -1\.0, but the gate's weight is at least 0"):
        GradientTopK(d_in=6, d_sae=64, beta=-1.0)
    with pytest.raises(ValueError, match=r"k is 65, but it is a whole number in 1\.\.d_sae = 64"):
        GradientTopK(d_in=6, d_sae=64, k=65)
    with pytest.raises(
        ValueError, match=r"d_out is 7, but GradientTopK weighs what its decoder rows do .*leave d_out out"
    ):
        GradientTopK(d_in=6, d_sae=64, d_out=7)
    with pytest.raises(ValueError, match=r"selection is 'both', but it is one of auto, act, grad"):
        getattr(GradientTopK.__init__, "__wrapped__", GradientTopK.__init__)(
            GradientTopK.__new__(GradientTopK), d_in=6, d_sae=64, selection="both"
        )
