from typing import Any

import pytest
import torch

from interp.harvesting import harvest
from interp.stores.base import RowStore
from interp.stores.paired import paired
from interp.stores.whole_examples import whole_examples
from interp.types import ActivationStore


@pytest.fixture
def store(tiny_text: Any, sentences: Any) -> RowStore:
    (found,) = harvest(tiny_text, sentences(60), "blocks.0", dtype="float32").values()
    return found


def test_batches_hold_whole_examples_and_an_epoch_holds_each_once(store: RowStore) -> None:
    whole = whole_examples(store)
    assert isinstance(whole, ActivationStore)
    for seed in (0, 1):
        batches = list(whole.batches(64, seed=seed, epochs=1))
        assert all(len(batch) <= 64 for batch in batches)
        seen = torch.cat([batch.example for batch in batches])
        assert len(seen) == len(store)
        for batch in batches:
            for example in batch.example.unique().tolist():
                own, known = batch[batch.example == example], store.example(example)
                assert torch.equal(own.position, known.position) and torch.equal(own.values, known.values)
    orders = [[b.example.tolist() for b in whole.batches(64, seed=seed, epochs=1)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_a_batch_is_full_but_for_the_example_that_does_not_fit(store: RowStore) -> None:
    longest = max(len(store.example(i)) for i in range(len(store.items)))
    *batches, _last = whole_examples(store).batches(64, seed=0, epochs=1)
    assert all(len(batch) > 64 - longest for batch in batches)


def test_the_sequence_is_the_same_wherever_one_starts(store: RowStore) -> None:
    whole = whole_examples(store)
    batches = [b for b, _ in zip(whole.batches(48, seed=3), range(40), strict=False)]
    for start in (1, 7, 33):
        later = next(whole.batches(48, seed=3, start_step=start))
        assert torch.equal(later.values, batches[start].values)
    # Epochs follow each other, and none of these batches, over several epochs, holds an example twice.
    for batch in batches:
        addresses = torch.stack([batch.example, batch.position], dim=1)
        assert len(addresses.unique(dim=0)) == len(batch)


def test_stored_order_and_names(store: RowStore) -> None:
    whole = whole_examples(store)
    assert torch.equal(next(whole.batches(50, seed=None)).values, next(store.batches(50, seed=None)).values)
    assert whole.fingerprint != store.fingerprint and whole.items is store.items and len(whole) == len(store)


def test_what_is_refused(store: RowStore) -> None:
    with pytest.raises(ValueError, match=r"size is 5, but the longest example of blocks.0 has \d+ rows.*at least \d+"):
        next(whole_examples(store).batches(5, seed=0))


def test_targets_stay_with_their_rows(store: RowStore) -> None:
    whole = whole_examples(paired(store, store))
    batch = next(whole.batches(64, seed=0))
    assert whole.d_out == store.d_in and torch.equal(batch.target, batch.values)
