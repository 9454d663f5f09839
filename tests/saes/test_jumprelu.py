import pytest
import torch
from torch import Tensor

from interp.types import Latents
from saes.jumprelu import JumpReLU
from saes.penalties.l0 import L0


def _x(n: int = 30) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sae(randomised) -> JumpReLU:
    return randomised(JumpReLU(d_in=6, d_sae=40, bandwidth=0.4, threshold=0.6).double())


def _rectangle(u: float) -> float:
    return 1.0 if -0.5 < u < 0.5 else 0.0


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_what_is_above_its_threshold_is_kept(sae: JumpReLU, training: bool) -> None:
    pre_acts, thresholds = (_x() - sae.b_dec) @ sae.W_enc + sae.b_enc, sae.log_threshold.exp()
    expected = pre_acts * (pre_acts > thresholds)
    assert (expected != 0).any(0).sum() > 10
    torch.testing.assert_close(sae.train(training).encode(_x()).dense(), expected, rtol=1e-12, atol=1e-12)


def test_the_gradients_are_those_of_equations_11_and_12(sae: JumpReLU) -> None:
    """Entry by entry: dz/dtheta = -theta/eps K((z - theta)/eps) for the code, -1/eps K for the count."""
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(30, 40, dtype=torch.float64, generator=draw)
    with torch.no_grad():
        pre_acts, thresholds = (_x() - sae.b_dec) @ sae.W_enc + sae.b_enc, sae.log_threshold.exp()
    by_code, by_count, near = torch.zeros(40).double(), torch.zeros(40).double(), 0
    for i in range(30):
        for j in range(40):
            theta = float(thresholds[j])
            kernel = _rectangle((float(pre_acts[i, j]) - theta) / 0.4) / 0.4
            near += kernel > 0
            by_code[j] += float(weights[i, j]) * -theta * kernel * theta  # d theta / d log theta = theta
            by_count[j] += -kernel * theta
    assert near > 50
    encoded = sae.train().encoded(_x())
    picked = weights[encoded.latents.rows, encoded.latents.indices]
    (found,) = torch.autograd.grad((encoded.latents.values * picked).sum(), [sae.log_threshold], retain_graph=True)
    torch.testing.assert_close(found, by_code, rtol=1e-10, atol=1e-12)
    (found,) = torch.autograd.grad(encoded.extras["firing"], [sae.log_threshold])
    torch.testing.assert_close(found, by_count, rtol=1e-10, atol=1e-12)


def test_l0_counts_what_fires(sae: JumpReLU, step_of) -> None:
    step = step_of(sae.train(), _x())
    fires = step.latents.without_zeros().values.numel()
    assert 0 < fires < step.latents.values.numel()  # The window holds entries that do not fire.
    assert L0(coefficient=2.0)(step).item() == pytest.approx(2 * fires / 30)
    assert L0(coefficient=2.0, warmup=0.5)(step_of(sae, _x(), progress=0.25)).item() == pytest.approx(fires / 30)


def test_folding_a_normaliser_scales_the_thresholds(sae: JumpReLU) -> None:
    sae.eval()
    before = sae.encode(_x()).dense()
    sae.rescale(4.0)
    torch.testing.assert_close(sae.encode(_x() / 4).dense(), before / 4, rtol=1e-12, atol=1e-12)


def test_l0_raises_thresholds_until_fewer_fire(rows) -> None:
    from interp.stores.memory import MemoryStore
    from saes.training import Job, TrainConfig, train

    store, config = MemoryStore.from_values(rows(2000)), TrainConfig(tokens=150 * 128, batch_size=128)
    counts = []
    for coefficient in (0.02, 0.5):
        (sae,) = train(Job(JumpReLU(d_in=6, d_sae=32), penalties=(L0(coefficient),)), store, config, progress=False)
        counts.append(sae.encode(rows(500, seed=1)).values.numel() / 500)
    assert counts[1] < 0.7 * counts[0]
    assert counts[1] > 0.5


def test_spread_is_indexing_with_sums_for_gradients() -> None:
    latents = Latents.from_dense(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
    table = torch.tensor([5.0, 6.0, 7.0], requires_grad=True)
    assert latents.spread(table).tolist() == [5.0, 7.0, 7.0]
    (latents.spread(table) * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert table.grad.tolist() == [1.0, 0.0, 110.0]
    assert latents.feature_sums(torch.tensor([10.0, 100.0]), torch.tensor([0, 2])).tolist() == [10.0, 0.0, 100.0]


@pytest.mark.parametrize("wrong", [{"bandwidth": 0.0}, {"threshold": -1.0}])
def test_impossible_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"(bandwidth|threshold) is .*, but it is positive: 0\.5 suits"):
        JumpReLU(d_in=6, d_sae=64, **wrong)


@pytest.mark.parametrize("wrong", [{"coefficient": -1.0}, {"warmup": 2.0}])
def test_wrong_penalties_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"L0 has coefficient .* warmup .* choose such values"):
        L0(**wrong)
