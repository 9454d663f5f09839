from pathlib import Path
from typing import Any

import pytest
import torch

from interp.harvesting import harvest
from interp.stores.base import RowStore
from interp.stores.memory import MemoryStore
from interp.stores.paired import paired
from interp.types import Activations, ActivationStore, Site
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

SITES = ("blocks.0", "blocks.1")


def _by_address(store: RowStore, name: str = "values") -> dict[tuple[int, int], torch.Tensor]:
    rows = store.span(0, len(store))
    return dict(zip(zip(rows.example.tolist(), rows.position.tolist(), strict=True), getattr(rows, name), strict=True))


def _looked_up(found: dict[tuple[int, int], torch.Tensor], batch: Activations) -> torch.Tensor:
    addresses = zip(batch.example.tolist(), batch.position.tolist(), strict=True)
    return torch.stack([found[address] for address in addresses])


@pytest.mark.parametrize("where", ["memory", "disk", "both"])
def test_every_batch_is_aligned_as_by_a_table_of_addresses(
    tiny_text: Any, sentences: Any, tmp_path: Path, where: str
) -> None:
    options: dict[str, Any] = {"loss": "next_token", "chunk_examples": 16, "dtype": "float32"}
    memory = list(harvest(tiny_text, sentences(40), SITES, **options).values())
    disk = list(harvest(tiny_text, sentences(40), SITES, tmp_path / "s", rows_per_shard=90, **options).values())
    store_in, store_out = {"memory": memory, "disk": disk, "both": [disk[0], memory[1]]}[where]
    store = paired(store_in, store_out)
    assert isinstance(store, ActivationStore)
    values, grads, targets = _by_address(store_in), _by_address(store_in, "grads"), _by_address(store_out)
    for seed in (None, 3):
        seen = list(store.batches(64, seed=seed, epochs=1))
        assert sum(map(len, seen)) == len(store) == len(store_in)
        for batch in seen:
            assert torch.equal(batch.values, _looked_up(values, batch))
            assert torch.equal(batch.target, _looked_up(targets, batch))
            assert torch.equal(batch.grads, _looked_up(grads, batch))
            assert not torch.equal(batch.target, batch.values)
    late, alone = (next(s.batches(64, seed=3, start_step=7)) for s in (store, store_in))
    assert torch.equal(late.values, alone.values)
    assert torch.equal(store.example(5).target, store_out.example(5).values)
    assert store.items[5].labels == store_in.items[5].labels


def test_widths_may_differ_and_both_sites_are_told() -> None:
    a, b = torch.randn(6, 3), torch.randn(6, 5)
    store = paired(MemoryStore.from_values(a, site="in"), MemoryStore.from_values(b, site="out@in"))
    assert (store.site, store.d_in, store.target_site, store.d_out) == (Site("in"), 3, Site("out", "in"), 5)
    assert store.provenance["target"] == {"site": "out@in", "d_out": 5}
    assert torch.equal(store.span(1, 4).target, b[1:4])
    batch = next(store.batches(4, seed=0))
    assert torch.equal(batch.target, b[batch.example])


def test_the_fingerprint_names_both_and_their_order() -> None:
    a, b, c = (MemoryStore.from_values(torch.randn(6, 3)) for _ in range(3))
    pairs = [(a, b), (b, a), (a, c), (a, a)]
    assert len({paired(*pair).fingerprint for pair in pairs}) == 4
    assert paired(a, b).fingerprint == paired(a, b).fingerprint


def test_a_job_is_trained_towards_the_target() -> None:
    x = torch.randn(512, 6, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(tokens=1000, batch_size=100, normalise="none")
    store = paired(MemoryStore.from_values(x), MemoryStore.from_values(x.flip(1) + 1))
    trainer = Trainer([Job(TopK(d_in=6, d_sae=12, k=3, d_out=6), penalties=())], config, store, progress=False)
    batch = next(store.batches(100, seed=0))
    with torch.no_grad():
        expected = (batch.values.flip(1) + 1 - trainer.jobs[0].sae(batch.values)).square().sum(dim=1).mean()
    (metrics,) = trainer.step(batch)
    assert metrics.terms["signal"] == pytest.approx(float(expected), rel=1e-5)
