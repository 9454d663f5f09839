from pathlib import Path
from typing import Any

import pytest
import torch

from interp.harvesting import harvest
from interp.stores.concatenated import concatenated
from interp.stores.disk import DiskStore
from interp.stores.memory import MemoryStore
from interp.types import Activations, ActivationStore, Site
from saes.loading import load
from saes.topk import TopK
from saes.training import TrainConfig, train

SITES = ("blocks.0", "blocks.1", "blocks.0@in")


def _equal(a: Activations, b: Activations) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("values", "example", "position"))


def _table(store: Any) -> dict[tuple[int, int], torch.Tensor]:
    rows = store.span(0, len(store))
    return {(int(e), int(p)): row for e, p, row in zip(rows.example, rows.position, rows.values, strict=True)}


@pytest.fixture
def folder(tmp_path: Path, tiny_text: Any, sentences: Any) -> Path:
    harvest(tiny_text, sentences(40), SITES, tmp_path / "store", rows_per_shard=90, chunk_examples=16)
    return tmp_path / "store"


def test_every_batch_is_aligned_as_by_a_table_of_addresses(folder: Path) -> None:
    parts = [DiskStore(folder, site) for site in SITES]
    memory = [MemoryStore(part.span(0, len(part)), site=part.site, items=part.items) for part in parts]
    tables = [_table(part) for part in parts]
    mixed = [parts[0], memory[1], parts[2]]
    for stores in (parts, memory, mixed):
        store = concatenated(stores)
        assert isinstance(store, ActivationStore)
        for seed in (None, 1):
            seen = list(store.batches(50, seed=seed, epochs=1))
            assert sum(map(len, seen)) == len(store) > 300
            for batch in seen:
                addresses = zip(batch.example.tolist(), batch.position.tolist(), strict=True)
                slow = [torch.cat([table[address] for table in tables]) for address in addresses]
                assert torch.equal(batch.values, torch.stack(slow))
        late, alone = (next(s.batches(50, seed=1, start_step=9)) for s in (store, parts[0]))
        assert torch.equal(late.values[:, :8], alone.values)
        assert torch.equal(store.example(3).values[:, 8:16], parts[1].example(3).values)


def test_the_parts_can_be_told(folder: Path) -> None:
    store = concatenated([DiskStore(folder, site) for site in SITES])
    assert store.sites == tuple(map(Site.parse, SITES))
    assert (store.widths, store.d_in) == ((8, 8, 8), 24)
    assert str(store.site) == "blocks.0+blocks.1+blocks.0:in"
    assert store.provenance["sites"] == list(SITES)
    assert store.provenance["model"]["name"] == "tiny-text"
    odd = [MemoryStore.from_values(torch.randn(4, 2), site=s) for s in ("a@in[1]#12", "b#3")]
    assert Site.parse(str(concatenated(odd).site)) == concatenated(odd).site
    assert concatenated(odd).fingerprint != concatenated(odd[::-1]).fingerprint


def test_gradients_stand_side_by_side_where_all_have_them() -> None:
    address = torch.arange(5), torch.zeros(5, dtype=torch.long)
    with_grads = [MemoryStore(Activations(torch.randn(5, d), *address, torch.randn(5, d))) for d in (2, 3)]
    grads = concatenated(with_grads).span(1, 4).grads
    assert torch.equal(grads, torch.cat([store.span(1, 4).grads for store in with_grads], dim=1))
    without = MemoryStore.from_values(torch.randn(5, 2))
    assert concatenated([with_grads[0], without]).span(0, 5).grads is None


def test_training_equals_training_on_one_wide_store(folder: Path, tmp_path: Path) -> None:
    parts = [DiskStore(folder, site) for site in SITES]
    rows = parts[0].span(0, len(parts[0]))
    wide = torch.cat([part.span(0, len(part)).values for part in parts], dim=1)
    whole = MemoryStore(Activations(wide, rows.example, rows.position))
    config, found = TrainConfig(tokens=1000, batch_size=100), []
    for number, store in enumerate((concatenated(parts), whole)):
        torch.manual_seed(0)
        sae = TopK(d_in=24, d_sae=48, k=4)
        found += train(sae, store, config, run=tmp_path / f"run-{number}", progress=False)
    for name, weight in found[0].state_dict().items():
        assert torch.equal(weight, found[1].state_dict()[name])
    again = load(tmp_path / "run-0" / "saes" / "topk.safetensors")
    assert str(again.site) == "blocks.0+blocks.1+blocks.0:in"
    assert again.provenance["widths"] == [8, 8, 8]
