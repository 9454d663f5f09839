import pytest
import torch

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.metrics.fvu import FVU
from saes.metrics.summing import Pass


def test_sums_by_example_equal_a_loop(orthogonal):
    values = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    example = torch.arange(50) // 7 * 2  # Odd examples have no rows.
    store, directions = MemoryStore(Activations(values, example, torch.arange(50) % 7)), orthogonal(6, 2)
    reading = Pass(directions, store, 8, None)
    sums, counts, rows_of = reading.sums([fvu := FVU()])
    recon = directions.decode(directions.encode(values))
    for i in range(15):
        error = (values - recon)[example == i].double().square().sum()
        assert float(sums[fvu][i, 0]) == pytest.approx(float(error), rel=1e-5)
        assert rows_of[i] == (example == i).sum()
    assert torch.allclose(reading.mean, values.double().mean(dim=0))
    assert torch.equal(counts, (directions.encode(values).dense() != 0).sum(dim=0))


def test_targets_of_transcoders_are_what_is_given_back(orthogonal):
    values = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    rows = Activations(values, torch.arange(20), torch.zeros(20, dtype=torch.long), target=values + 1)
    sums, _, _ = Pass(orthogonal(6, 6), MemoryStore(rows), 8, None).sums([fvu := FVU()])
    assert float(sums[fvu][:, 0].sum()) == pytest.approx(120, rel=1e-5)
    wide = Activations(values, rows.example, rows.position, target=torch.zeros(20, 9))
    with pytest.raises(ValueError, match=r"give back width 6, but the store asks for 9"):
        Pass(orthogonal(6, 6), MemoryStore(wide), 8, None).sums([FVU()])
