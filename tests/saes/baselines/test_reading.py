import pytest
import torch

from interp.stores.memory import MemoryStore
from saes.baselines import reading
from saes.baselines.reading import batches, mean_of, moments, sampled


@pytest.fixture
def x() -> torch.Tensor:
    """Rows far from 0, where a covariance of float32 sums, or of sums around 0, would be noise."""
    return 1e4 + torch.randn(1000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_moments_of_rows_far_from_zero(x, monkeypatch) -> None:
    monkeypatch.setattr(reading, "_SIZE", 64)
    n, mean, covariance = moments(MemoryStore.from_values(x), None, seed=0)
    assert n == 1000
    assert torch.allclose(mean, x.mean(0), rtol=1e-14)
    assert torch.allclose(covariance, torch.cov(x.T, correction=0), rtol=1e-9)
    assert torch.allclose(mean_of(MemoryStore.from_values(x), None, seed=0)[1], x.mean(0), rtol=1e-14)


def test_samples_are_the_first_rows_of_the_shuffle(x, monkeypatch) -> None:
    monkeypatch.setattr(reading, "_SIZE", 64)
    store = MemoryStore.from_values(x)
    found = sampled(store, 150, seed=3, at_least=1, reason="it")
    assert torch.equal(found, next(store.batches(150, seed=3)).values)
    assert torch.equal(torch.cat(list(batches(store, None, seed=3))), x)
    assert len(sampled(store, 5000, seed=3, at_least=1, reason="it")) == 1000
    assert len(found.unique(dim=0)) == 150


def test_too_few_rows_are_refused(x) -> None:
    store = MemoryStore.from_values(x)
    with pytest.raises(ValueError, match="there are 20 rows, but ICA with 30 takes at least 31: give more rows"):
        sampled(store, 20, seed=0, at_least=31, reason="ICA with 30")
    with pytest.raises(ValueError, match="rows is 0, but a fit needs some"):
        mean_of(store, 0, seed=0)
