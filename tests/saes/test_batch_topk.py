import pytest
import torch
from torch import Tensor

from saes.batch_topk import BatchTopK
from saes.engine.batch_choice import BOUNDS


def _x(n: int = 30, *, seed: int = 0) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _slow(sae: BatchTopK, x: Tensor) -> Tensor:
    """Equation 5: the n * k largest of the flattened batch, after a ReLU."""
    pre_acts = torch.stack([(row - sae.b_dec) @ sae.W_enc + sae.b_enc for row in x])
    values, places = pre_acts.flatten().topk(sae.k * len(x))
    return torch.zeros_like(pre_acts).flatten().index_put((places,), values.relu()).view_as(pre_acts)


@pytest.fixture
def sae(randomised) -> BatchTopK:
    return randomised(BatchTopK(d_in=6, d_sae=40, k=4).double()).train()


@pytest.mark.parametrize("last", ["unset", 0.0, 0.5, 1.0, 1.05, 1.2, 1.3, 10.0])
def test_the_choice_is_that_of_topk_over_the_batch_whatever_the_last_one(last, sae, monkeypatch) -> None:
    """Too high a bound finds too few, and the encoder is asked again; `last` is in units of the true border."""
    expected = _slow(sae, _x())
    attempts = []
    candidates = sae.candidates
    monkeypatch.setattr(
        sae, "candidates", lambda p, context: attempts.append(context.attempt) or candidates(p, context)
    )
    border = float(expected[expected > 0].min())
    sae.last.fill_(float("nan") if last == "unset" else last * border)
    latents = sae.encode(_x())
    assert len(latents.values) == 4 * 30
    torch.testing.assert_close(latents.dense(), expected, rtol=1e-12, atol=1e-12)
    tried = {1.2: 1, 1.3: 2, 10.0: 2}.get(last, 0)  # 0.95 * 1.2 and 0.8 * 1.3 are above the border.
    assert attempts == list(range(tried + 1))


def test_ties_at_the_border_never_drop_what_is_larger() -> None:
    sae = BatchTopK(d_in=1, d_sae=3, k=1).double()
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 1.0, 2.0]]))
    latents = sae.train().encode(torch.tensor([[1.0], [1.0], [1.0]], dtype=torch.float64))
    assert sorted(latents.values.tolist()) == [2.0, 2.0, 2.0]
    latents = sae.encode(torch.tensor([[0.1], [0.2], [0.4]], dtype=torch.float64))
    assert sorted(latents.values.tolist()) == pytest.approx([0.4, 0.4, 0.8])
    with torch.no_grad():
        sae.b_enc.copy_(torch.tensor([0.0, 0.0, -1.0]))
    latents = sae.encode(torch.tensor([[1.0], [1.0], [2.0]], dtype=torch.float64))  # 1 1 1; 1 1 1; 2 2 3
    assert sorted(latents.values.tolist()) == [2.0, 2.0, 3.0]


def test_fewer_positive_entries_than_the_budget_are_all_kept(sae: BatchTopK) -> None:
    with torch.no_grad():
        sae.b_enc.fill_(-3.0)
    for last in (float("nan"), 0.0, 5.0):
        sae.last.fill_(last)
        torch.testing.assert_close(sae.encode(_x()).dense(), _slow(sae, _x()))
        assert 0 < len(sae.encode(_x()).values) < 4 * 30


@torch.no_grad()
def test_evaluation_keeps_what_is_above_the_threshold(sae: BatchTopK) -> None:
    sae.eval().threshold.fill_(0.7)
    pre_acts = (_x() - sae.b_dec) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(sae.encode(_x()).dense(), pre_acts * (pre_acts > 0.7), rtol=1e-12, atol=1e-12)


def test_evaluation_before_the_first_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold is not set.* train this BatchTopK .* or call \.train\(\)"):
        BatchTopK(d_in=6, d_sae=64).eval().encode(torch.zeros(2, 6))


def test_the_threshold_is_the_running_mean_of_the_smallest_kept_value() -> None:
    sae = BatchTopK(d_in=6, d_sae=40, k=4, threshold_rate=0.1).double()
    smallest = []
    for seed in range(4):
        latents = sae.codes(_x(seed=seed))
        smallest.append(float(latents.values.detach().min()))
        moved = sae.moved_thresholds(latents)
        assert sae.threshold.isnan() or seed  # Pure: the Trainer moves it.
        sae.threshold.copy_(moved["threshold"])
        assert float(moved["last"]) == smallest[-1]
    expected = smallest[0]
    for value in smallest[1:]:
        expected = 0.9 * expected + 0.1 * value
    assert float(sae.threshold) == pytest.approx(expected, rel=1e-6)
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    assert sae.moved_thresholds(sae.codes(_x())) == {}


def test_the_fractions_tried_descend() -> None:
    assert sorted(BOUNDS, reverse=True) == list(BOUNDS)
    assert 0 < BOUNDS[-1] < BOUNDS[0] < 1


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"k is 65, but it is a whole number in 1\.\.d_sae = 64"):
        BatchTopK(d_in=6, d_sae=64, k=65)
    for rate in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=rf"threshold_rate is {rate}, but a rate is in \(0, 1\]"):
            BatchTopK(d_in=6, d_sae=64, threshold_rate=rate)
