import numpy as np
import pytest
import torch

from interp.stores.base import shuffled_rows
from interp.stores.memory import MemoryStore
from interp.stores.shuffling import counter_key, shuffled


def _slow(place: int, n: int, seed: int, epoch: int) -> int:
    """One place, as the paper has it: six rounds of the finaliser of splitmix64, again and again until inside."""
    bits = max((n - 1).bit_length(), 2)
    low_bits, high_bits = bits // 2, bits - bits // 2
    for r in range(6):
        high, low = place >> low_bits, place % 2**low_bits
        mixed = (low + int(counter_key(seed, epoch, r))) % 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            mixed = (mixed ^ mixed >> shift) * factor % 2**64
        place = low << high_bits | high ^ mixed % 2**high_bits
        low_bits, high_bits = high_bits, low_bits
    return place if place < n else _slow(place, n, seed, epoch)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 1000, 2**17, 2**31 + 5, 2**32, 2**33 + 1, 10**12])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3), (2**63 + 1, 1), (-2, 10)])
def test_each_place_is_that_of_the_slow_version(n: int, seed: int, epoch: int) -> None:
    """Stores of up to 2**32 rows look rounds up in tables, larger ones compute them."""
    places = np.random.default_rng(0).integers(0, n, 40)
    found = shuffled(places, n, seed=seed, epoch=epoch)
    assert found.tolist() == [_slow(int(place), n, seed, epoch) for place in places]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 100, 1000, 4097])
@pytest.mark.parametrize("epoch", [0, 1])
def test_each_epoch_is_a_permutation(n: int, epoch: int) -> None:
    rows = shuffled(np.arange(n), n, seed=7, epoch=epoch)
    assert np.array_equal(np.sort(rows), np.arange(n))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(shuffled(np.arange(100), 100, seed=s, epoch=e)) for s in range(3) for e in range(3)]
    assert len(set(orders)) == len(orders)


def test_a_place_costs_the_same_in_a_store_of_any_size() -> None:
    n = 10**12  # an order held in memory would take 8 TB
    rows = shuffled(np.array([0, 1, n - 1]), n, seed=0, epoch=0)
    assert len(set(rows.tolist())) == 3
    assert (rows >= 0).all()
    assert (rows < n).all()


def test_mixing_is_global_and_even() -> None:
    """A tenth of the epoch draws about a tenth of every tenth of the rows: chi squared of 10 x 10 counts."""
    n = 10_000
    rows = shuffled(np.arange(n), n, seed=3, epoch=0)
    counts = np.histogram2d(np.arange(n) * 10 // n, rows * 10 // n, bins=10)[0]
    chi_squared = ((counts - n / 100) ** 2 / (n / 100)).sum()
    assert 40 < chi_squared < 140  # 81 degrees of freedom; the mean of a random permutation is 81
    assert abs(np.corrcoef(np.arange(n), rows)[0, 1]) < 0.05


@pytest.mark.parametrize("size", [1, 7, 64, 300])
def test_batches_of_any_size_walk_through_the_same_epochs(size: int) -> None:
    n, epochs = 100, 3
    steps = -(-n * epochs // size)
    rows = np.concatenate([shuffled_rows(n, size, 5, step, n * epochs) for step in range(steps)])
    expected = np.concatenate([shuffled(np.arange(n), n, seed=5, epoch=e) for e in range(epochs)])
    assert np.array_equal(rows, expected)


@pytest.mark.parametrize("seed", [None, 0, 11])
def test_starting_at_a_step_equals_skipping_to_it(seed: int | None) -> None:
    store = MemoryStore.from_values(torch.arange(50.0)[:, None])
    whole = [batch.values for batch in store.batches(8, seed=seed, epochs=3)]
    for start in (0, 1, 6, len(whole) - 1, len(whole)):
        late = [batch.values for batch in store.batches(8, seed=seed, epochs=3, start_step=start)]
        assert len(late) == len(whole) - start
        assert all(torch.equal(a, b) for a, b in zip(late, whole[start:], strict=True))


def test_shuffled_batches_are_full_and_endless() -> None:
    store = MemoryStore.from_values(torch.arange(10.0)[:, None])
    batches = store.batches(4, seed=0)
    seen = torch.cat([next(batches).values for _ in range(25)]).flatten()
    assert len(seen) == 100
    assert torch.equal(seen.long().bincount(), torch.full((10,), 10))
