from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.harvesting import harvest
from interp.stores import statistics as module
from interp.stores.base import RowStore
from interp.stores.concatenated import concatenated
from interp.stores.memory import MemoryStore
from interp.stores.statistics import statistics
from interp.types import Activations, Geometry, Site


class _Raw(RowStore):
    """Rows that nobody checked."""

    def __init__(self, values: torch.Tensor) -> None:
        self._rows = Activations(values, torch.arange(len(values)) // 3, torch.arange(len(values)) % 3)
        self.site, self.d_in, self.geometry, self.items = Site("raw"), values.shape[1], Geometry(), []
        self.fingerprint, self.provenance = "", {}

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, numbers: torch.Tensor) -> Activations:
        return self._rows[numbers]


@pytest.mark.parametrize("batch", [30, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_facts_are_those_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch, batch: int, offset: float) -> None:
    monkeypatch.setattr(module, "_BATCH", batch)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(331, 5, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 1e3, 1, 1]) + offset
    x[::7, 3] = 0
    found, slow = statistics(_Raw(x)), x.numpy()
    assert (found.rows, found.examples) == (331, 111)
    np.testing.assert_allclose(found.mean.numpy(), slow.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        found.variance.numpy(), slow.var(0), rtol=1e-7
    )  # 1e6 over 1e-3: a difference of sums has no digit right
    assert found.total_variance == pytest.approx(slow.var(0).sum(), rel=1e-9)
    assert (found.low, found.high) == (slow.min(), slow.max())
    assert found.zeros == pytest.approx((slow == 0).mean(), rel=1e-12) and found.zeros > 0
    norms = np.linalg.norm(slow, axis=1)
    for name, share in (("p1", 0.01), ("p50", 0.5), ("p99", 0.99)):
        assert found.norms[name] == pytest.approx(np.quantile(norms, share, method="inverted_cdf"), rel=3e-4)
    assert found.norms["max"] == pytest.approx(norms.max(), rel=1e-12)
    assert (found.nan, found.infinite) == (0, 0)


@pytest.mark.parametrize("n", [1, 2, 3, 50, 99, 100, 101, 200])
def test_quantiles_of_few_rows(n: int) -> None:
    norms = torch.rand(n, generator=torch.Generator().manual_seed(n)) * 10.0 ** torch.arange(n).remainder(7)
    found = statistics(MemoryStore.from_values(norms[:, None])).norms
    for name, share in (("p1", 0.01), ("p50", 0.5), ("p99", 0.99)):
        assert found[name] == pytest.approx(float(np.quantile(norms, share, method="inverted_cdf")), rel=3e-4)
    assert found["p99"] <= found["max"]


def test_damaged_rows_are_counted_and_left_out() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    clean = statistics(_Raw(x[2:]))
    x[0] = torch.tensor([torch.nan, torch.nan, 1])
    x[1, 1] = -torch.inf
    found = statistics(_Raw(x))
    assert (found.rows, found.nan, found.infinite) == (40, 2, 1)
    assert torch.allclose(found.variance, clean.variance, rtol=1e-12)
    assert (found.low, found.high, found.norms) == (clean.low, clean.high, clean.norms)
    assert "damaged   2 NaN, 1 infinite" in str(found)
    nothing = statistics(_Raw(torch.full((3, 2), torch.nan)))
    assert nothing.nan == 6
    assert nothing.mean.isnan().all() and nothing.variance.isnan().all()
    assert all(np.isnan([nothing.low, nothing.high, nothing.zeros, *nothing.norms.values()]))
    assert "nan" in str(nothing)


def test_norms_beyond_every_bin() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [1e100, 0.0]], dtype=torch.float64)
    found = statistics(_Raw(x)).norms
    assert found["p1"] == 0
    assert found["max"] == 1e100
    assert 3e38 < found["p99"] < np.inf


def test_every_kind_of_store(tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    sites = ("blocks.0", "blocks.1")
    disk = list(harvest(tiny_text, sentences(40), sites, tmp_path / "s", rows_per_shard=60).values())
    memory = list(harvest(tiny_text, sentences(40), sites).values())
    found = [statistics(store) for store in (disk[0], memory[0], concatenated(disk))]
    assert torch.equal(found[0].mean, found[1].mean)
    assert str(found[0]) == str(found[1])
    assert torch.allclose(found[2].variance[:8], found[0].variance, rtol=1e-12)
    with_rows = {int(e) for e in memory[0].span(0, len(memory[0])).example}
    assert found[0].examples == len(with_rows) < len(disk[0].items)
    assert str(found[0]).startswith(f"rows      {len(disk[0])} of {len(with_rows)} examples, width 8\n")
    with pytest.raises(ValueError, match="the store holds no rows"):
        statistics(MemoryStore.from_values(torch.zeros(0, 2)))
