import pytest
import torch

from interp.stores.memory import MemoryStore, labelled_items
from interp.types import Activations


def _activations(n_examples: int = 5) -> Activations:
    lengths = torch.arange(1, n_examples + 1)
    example = torch.repeat_interleave(torch.arange(n_examples), lengths)
    position = torch.cat([torch.arange(length) for length in lengths.tolist()])
    values = torch.randn(len(example), 3, generator=torch.Generator().manual_seed(0))
    return Activations(values, example, position)


def test_examples_are_their_rows() -> None:
    rows = _activations()
    store = MemoryStore(rows)
    for index in range(5):
        assert torch.equal(store.example(index).values, rows.values[rows.example == index])
        assert store.example(index).position.tolist() == list(range(index + 1))
    with pytest.raises(IndexError, match="example is 5, but the store holds examples 0 to 4"):
        store.example(5)


def test_stored_order_gives_every_row_once() -> None:
    rows = _activations()
    batches = list(MemoryStore(rows).batches(4, seed=None))
    assert [len(batch) for batch in batches] == [4, 4, 4, 3]
    assert torch.equal(torch.cat([batch.values for batch in batches]), rows.values)


def test_fingerprint_names_the_content() -> None:
    rows = _activations()
    same = MemoryStore(Activations(rows.values.clone(), rows.example, rows.position))
    moved = MemoryStore(Activations(rows.values, rows.example, rows.position + 1))
    other = MemoryStore(Activations(rows.values + 1, rows.example, rows.position))
    assert MemoryStore(rows).fingerprint == same.fingerprint
    assert len({same.fingerprint, moved.fingerprint, other.fingerprint}) == 3


def test_rows_that_no_method_can_use_are_refused() -> None:
    rows = _activations()
    broken = rows.values.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"values has 1 rows with NaN or infinity \(the first is row 3\)"):
        MemoryStore(Activations(broken, rows.example, rows.position))
    with pytest.raises(ValueError, match="example must not descend"):
        MemoryStore(Activations(rows.values, rows.example.flip(0), rows.position))


@pytest.mark.parametrize(("size", "message"), [(0, "size is 0"), (-1, "size is -1")])
def test_a_batch_needs_a_row(size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryStore(_activations()).batches(size, seed=None)


def test_an_empty_store_gives_no_batches() -> None:
    with pytest.raises(ValueError, match="the store holds no rows"):
        MemoryStore.from_values(torch.zeros(0, 3)).batches(4, seed=0)


def test_labels_come_as_columns() -> None:
    items = labelled_items({"kind": ["a", "b"], "font": ["x", "y"]})
    assert [dict(item.labels) for item in items] == [{"kind": "a", "font": "x"}, {"kind": "b", "font": "y"}]
