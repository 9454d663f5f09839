from pathlib import Path
from typing import Any

import pytest
import torch

from interp.harvesting import harvest
from interp.stores.appended import appended
from interp.stores.memory import MemoryStore
from interp.stores.paired import paired
from interp.types import Activations, ActivationStore, Geometry, Item

SITES = ("blocks.0", "blocks.1")
OPTIONS: dict[str, Any] = {"labels": ["kind"], "loss": "next_token", "chunk_examples": 16, "dtype": "float32"}


def _equal(a: Activations, b: Activations) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("values", "example", "position", "grads"))


def _slow(stores: list[Any]) -> MemoryStore:
    """The rows of all, copied, with the examples counted on."""
    parts, items = [], list[Item]()
    for store in stores:
        rows = store.span(0, len(store))
        parts.append(Activations(rows.values, rows.example + len(items), rows.position, rows.grads, rows.target))
        items += store.items
    return MemoryStore(Activations.concatenate(parts), items=items)


@pytest.fixture
def stores(tiny_text: Any, sentences: Any, tmp_path: Path) -> list[Any]:
    """Three stores of one site: of 30 examples on disk, of 12 in memory, of 20 on disk."""
    first = harvest(tiny_text, sentences(30), SITES, tmp_path / "a", rows_per_shard=90, **OPTIONS)
    second = harvest(tiny_text, sentences(12, seed=1), SITES, **OPTIONS)
    third = harvest(tiny_text, sentences(20, seed=2), SITES, tmp_path / "c", rows_per_shard=50, **OPTIONS)
    return [found[tiny_text.site("blocks.1")] for found in (first, second, third)]


def test_rows_are_those_of_one_store_after_the_other(stores: list[Any]) -> None:
    store, slow = appended(stores), _slow(stores)
    assert isinstance(store, ActivationStore)
    assert len(store) == len(slow) > 500
    for seed in (None, 0, 1):
        pairs = zip(store.batches(64, seed=seed, epochs=2), slow.batches(64, seed=seed, epochs=2), strict=True)
        assert all(_equal(a, b) for a, b in pairs)
    assert _equal(next(store.batches(64, seed=1, start_step=5)), next(slow.batches(64, seed=1, start_step=5)))
    numbers = torch.tensor([len(store) - 1, 0, 300, 300, 1])
    assert _equal(store.rows(numbers), slow.rows(numbers))
    assert len(store.rows(torch.zeros(0, dtype=torch.long))) == 0
    first, second = len(stores[0]), len(stores[0]) + len(stores[1])
    for low, high in ((0, 1), (5, first), (first - 1, second + 1), (second, second + 1)):
        assert torch.equal(torch.stack(store.addresses(low, high)), torch.stack(slow.addresses(low, high)))


def test_examples_and_items_are_numbered_on(stores: list[Any]) -> None:
    store, slow = appended(stores), _slow(stores)
    assert len(store.items) == 62
    for index in range(62):
        assert _equal(store.example(index), slow.example(index))
        assert store.items[index].pieces == slow.items[index].pieces
    assert [item.labels for item in store.items] == [item.labels for item in slow.items]
    assert store.items[-1].pieces == slow.items[61].pieces
    assert [item.pieces for item in store.items[28:33]] == [slow.items[i].pieces for i in range(28, 33)]
    for wrong in (62, -63):
        with pytest.raises(IndexError, match=f"item is {wrong}, but the store holds items 0 to 61"):
            store.items[wrong]
    for wrong in (-1, len(store)):
        with pytest.raises(IndexError, match=f"but there are {len(store)}"):
            store.rows(torch.tensor([0, wrong]))


def test_nesting_changes_nothing(stores: list[Any]) -> None:
    a, b, c = stores
    flat, nested = appended([a, b, c]), appended([appended([a, b]), c])
    pairs = zip(*(store.batches(70, seed=4, epochs=1) for store in (flat, nested)), strict=True)
    assert all(_equal(x, y) for x, y in pairs)
    assert flat.provenance == nested.provenance
    assert appended([a]).span(0, 50).example.tolist() == a.span(0, 50).example.tolist()
    assert len({appended(parts).fingerprint for parts in ([a, b], [b, a], [a, c], [a])}) == 4


def test_provenance_adds_up_and_keeps_the_parts(stores: list[Any]) -> None:
    parts = [store.provenance for store in stores]
    joined = appended(stores).provenance
    assert joined["model"] == parts[0]["model"]
    assert joined["counts"]["rows"] == sum(part["counts"]["rows"] for part in parts) == len(appended(stores))
    assert joined["counts"]["items"] == 62
    assert [part["dataset"] for part in joined["parts"]] == [part["dataset"] for part in parts]
    assert [part["counts"] for part in joined["parts"]] == [part["counts"] for part in parts]
    assert joined["dataset"]["fingerprint"] not in [part["dataset"]["fingerprint"] for part in parts]
    outliers = [MemoryStore.from_values(torch.ones(1, 1), provenance={"counts": c}) for c in _COUNTS]
    assert appended(outliers).provenance["counts"] == {"items": 5, "outliers": {"x": 3, "y": 4}, "medians": {}}
    assert appended([MemoryStore.from_values(torch.ones(2, 1))] * 2).provenance == {"parts": [{}, {}]}


_COUNTS: list[dict[str, Any]] = [
    {"items": 2, "outliers": {"x": 3}, "medians": {"x": 1.5}},
    {"items": 3, "outliers": {"y": 4}, "medians": {"x": 2.5}},
]


def test_what_does_not_fit_is_refused() -> None:
    def made(d: int = 2, dtype: Any = torch.float32, *, grads: bool = False, **about: Any) -> MemoryStore:
        values = torch.randn(4, d).to(dtype)
        rows = Activations(values, torch.arange(4), torch.zeros(4, dtype=torch.long), values if grads else None)
        return MemoryStore(rows, **about)

    plain = made(site="a", provenance={"model": {"name": "m", "fingerprint": "1"}})
    for other, message in (
        (made(site="b"), r"stores\[1\] has site b, but stores\[0\] has a: append rows of one kind"),
        (made(3, site="a"), "has width 3, but stores.0. has 2"),
        (made(site="a", geometry=Geometry(prefix=1)), "has geometry Geometry.*prefix=1"),
        (made(site="a", dtype=torch.float64), "has dtype torch.float64, but stores.0. has torch.float32"),
        (made(site="a", grads=True), "has gradients True, but stores.0. has False"),
        (paired(made(site="a"), made()), "has targets of width 2, but stores.0. has None"),
        (
            made(site="a", provenance={"model": {"name": "n", "fingerprint": "2"}}),
            r"stores\[1\] was harvested with model n \(2\), but stores\[0\] with m \(1\): harvest both with one model",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            appended([plain, other])
    with pytest.raises(ValueError, match="stores are none"):
        appended([])


def test_pairs_append_and_appended_stores_pair() -> None:
    a, b, c, d = (MemoryStore.from_values(torch.randn(n, 2)) for n in (4, 4, 3, 3))
    one, other = appended([paired(a, b), paired(c, d)]), paired(appended([a, c]), appended([b, d]))
    for left, right in zip(one.batches(3, seed=2, epochs=1), other.batches(3, seed=2, epochs=1), strict=True):
        assert torch.equal(left.target, right.target)
        assert torch.equal(left.values, right.values)
        assert torch.equal(left.example, right.example)
    with pytest.raises(ValueError, match=r"row 4 is past the end, but example 4, position 0 in store_in"):
        paired(appended([a, c]), b)
