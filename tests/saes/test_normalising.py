import pytest
import torch

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.base import SAE
from saes.loading import methods
from saes.normalising import Normaliser, estimate
from saes.topk import TopK


def test_the_estimate_gives_unit_variance_and_the_mean(rows) -> None:
    x = rows(5000)
    found = estimate(MemoryStore.from_values(x), "scale", seed=0)
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-5, atol=1e-5)
    assert float((x * found.scale).double().var(0, correction=0).mean()) == pytest.approx(1, rel=1e-6)
    assert estimate(MemoryStore.from_values(x), "none", seed=0).scale == 1


def test_a_far_mean_costs_no_digits(rows) -> None:
    x = rows(5000).double()
    near, far = (estimate(MemoryStore.from_values(v.float()), "scale", seed=0).scale for v in (x, x + 1000))
    assert far == pytest.approx(near, rel=1e-3)


def test_only_the_first_shuffled_rows_are_read(rows) -> None:
    x = rows(1000)
    store = MemoryStore.from_values(x)
    seen = torch.cat([batch.values for batch in store.batches(100, seed=3, epochs=1)][:3])
    found = estimate(store, "scale", seed=3, rows=300, size=100)
    torch.testing.assert_close(found.mean, seen.mean(0), rtol=1e-5, atol=1e-5)


def test_values_and_gradients_change_units_inversely(rows) -> None:
    x, n = rows(4), torch.arange(4)
    batch = Activations(x, n, n, grads=x + 1, target=x + 2)
    changed = Normaliser(torch.zeros(6), 4.0)(batch)
    assert torch.equal(changed.values, 4 * x)
    assert torch.equal(changed.grads, (x + 1) / 4)  # A loss moves as much: values . grads stays.
    assert torch.equal(changed.target, x + 2)
    both = Normaliser(torch.zeros(6), 4.0, target_mean=torch.zeros(6), target_scale=0.5)(batch)
    assert torch.equal(both.target, (x + 2) / 2)
    assert torch.equal(both.values, 4 * x)
    assert Normaliser(torch.zeros(6), 1.0)(batch) is batch


@pytest.mark.parametrize("method", methods().values(), ids=methods().keys())
def test_the_folded_sae_is_the_normalised_one_in_the_models_units(method: type[SAE], randomised, rows) -> None:
    x, normaliser = rows(50).double(), Normaliser(torch.zeros(6), 0.3)
    sae = randomised(method(d_in=6, d_sae=64).double())
    for training in (True, False):
        inside = sae.train(training)(x * normaliser.scale)
        normaliser.leave(sae)
        torch.testing.assert_close(sae(x) * normaliser.scale, inside, rtol=1e-10, atol=1e-12)
        normaliser.enter(sae)
        torch.testing.assert_close(sae(x * normaliser.scale), inside, rtol=1e-10, atol=1e-12)


def test_a_fresh_sae_starts_at_the_mean() -> None:
    sae = TopK(d_in=6, d_sae=64)
    Normaliser(torch.arange(6.0), 0.5).enter(sae)
    assert torch.equal(sae.b_dec, torch.arange(6.0) / 2)


class _Infinite(MemoryStore):
    def rows(self, numbers):
        found = super().rows(numbers)
        return Activations(found.values * float("inf"), found.example, found.position)


def test_rows_that_teach_nothing_are_refused(rows) -> None:
    with pytest.raises(ValueError, match="rows do not vary"):
        estimate(MemoryStore.from_values(torch.ones(50, 6)), "scale", seed=0)
    with pytest.raises(ValueError, match="NaN, infinite or overflowing values in its first 50 shuffled rows"):
        estimate(_Infinite.from_values(rows(50)), "scale", seed=0)
    with pytest.raises(ValueError, match="normalise is 'layer', but it is 'scale' or 'none'"):
        getattr(estimate, "__wrapped__", estimate)(MemoryStore.from_values(rows(50)), "layer", seed=0)
