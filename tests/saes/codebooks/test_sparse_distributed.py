import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.types import Latents
from saes.codebooks.sparse_distributed import SparseDistributed, overlap


def _sets(n: int, d: int = 200, size: int = 20, seed: int = 1) -> Tensor:
    """Random sets of one size."""
    chosen = torch.rand(n, d, generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :size]
    return torch.zeros(n, d).scatter(1, chosen, 1.0)


def _changed(x: Tensor, kept: int, seed: int) -> Tensor:
    """The set with all but `kept` of its members exchanged."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.rand(x.shape, generator=draw) + 10 * x  # Members last.
    out = torch.zeros_like(x)
    on = order.argsort(descending=True)[:kept]
    off = order.argsort()[: int(x.sum()) - kept]
    out[on] = 1
    out[off] = 1
    return out


def test_what_was_stored_is_replayed_exactly() -> None:
    x = _sets(40)
    memory = SparseDistributed(d_in=200, winners=32, units=16)
    codes = memory.learn(x)
    assert torch.equal(memory.familiarity(x), torch.ones(40))
    assert torch.equal(memory.encode(x).indices, codes.indices)
    # Learning it again draws nothing new: at G = 1 there is no noise.
    weights = memory.weights.clone()
    assert torch.equal(memory.learn(x).indices, codes.indices)
    assert torch.equal(memory.weights, weights)
    assert torch.equal(memory(x) == 1, x == 1)


def test_codes_are_one_winner_a_module() -> None:
    memory = SparseDistributed(d_in=200, winners=5, units=7)
    codes = memory.learn(_sets(30))
    assert torch.equal(codes.indices.view(30, 5) // 7, torch.arange(5).expand(30, -1))
    assert torch.equal(codes.values, torch.ones(150))


def test_weights_are_hebbian_and_binary() -> None:
    x = _sets(30)
    memory = SparseDistributed(d_in=200, winners=5, units=7)
    codes = memory.learn(x).dense()
    slow = torch.zeros(35, 200, dtype=torch.bool)
    for code, row in zip(codes, x, strict=True):
        for unit in range(35):
            if code[unit]:
                slow[unit] |= row == 1
    assert torch.equal(memory.weights, slow)
    assert torch.equal(memory.W_dec, slow / 5)


def test_support_and_familiarity_are_those_of_the_formula() -> None:
    memory = SparseDistributed(d_in=200, winners=5, units=7)
    memory.learn(_sets(30))
    for row, found in zip(_sets(10, seed=2), memory.familiarity(_sets(10, seed=2)), strict=True):
        total = 0.0
        for module in range(5):
            total += max(float(row @ memory.weights[7 * module + unit].float()) / 20 for unit in range(7))
        assert float(found) == pytest.approx(total / 5, rel=1e-6)


@pytest.mark.parametrize("kept", [8, 12, 14, 17])
def test_winners_are_drawn_in_proportion_to_mu(kept: int) -> None:
    """After one stored row, a row that shares s of it keeps each winner with a probability in closed form."""
    x = _sets(1)
    units, winners, s = 8, 4000, kept / 20
    memory = SparseDistributed(d_in=200, winners=winners, units=units)
    stored = memory.learn(x)

    def mu(support: float) -> float:
        return 1 + 1000 * s**3 / (1 + float(torch.exp(torch.tensor(-12 * (support - 0.9)))))

    found = float(overlap(stored, memory.learn(_changed(x[0], kept, 5)[None])))
    expected = mu(s) / (mu(s) + (units - 1) * mu(0.0))
    assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / winners) ** 0.5)


def test_overlap_follows_similarity() -> None:
    """Also with other rows stored: the code of a changed row is closer, the less it was changed."""
    memory = SparseDistributed(d_in=200, winners=128)
    x = _sets(1)
    stored = memory.learn(x)
    memory.learn(_sets(10, seed=3))
    similarity, overlaps = [], []
    for kept in range(21):
        copied = copy.deepcopy(memory)
        similarity.append(kept / 20)
        overlaps.append(float(overlap(stored, copied.learn(_changed(x[0], kept, kept)[None]))))
    assert spearmanr(similarity, overlaps).statistic > 0.9
    assert overlaps[-1] == 1
    assert overlaps[0] < 0.2


def test_capacity_falls_with_what_is_stored_and_grows_with_the_memory() -> None:
    def recalled(winners: int, units: int, n: int) -> float:
        memory = SparseDistributed(d_in=200, winners=winners, units=units)
        x = _sets(n)
        memory.learn(x)
        return float((memory(x) == 1).eq(x > 0).all(1).float().mean())

    small = [recalled(16, 8, n) for n in (10, 50, 200)]
    assert small[0] == 1
    assert small[0] > small[1] > small[2]
    assert recalled(32, 16, 50) == 1
    assert recalled(32, 16, 100) > recalled(16, 8, 100) + 0.3


def test_learning_is_a_function_of_the_seed_and_the_rows_so_far() -> None:
    x = _sets(20)
    whole, parts, other = (SparseDistributed(d_in=200, seed=seed) for seed in (0, 0, 1))
    codes = whole.learn(x)
    first, second = parts.learn(x[:7]), parts.learn(x[7:])
    assert torch.equal(torch.cat([first.indices, second.indices]), codes.indices)
    assert torch.equal(parts.weights, whole.weights)
    assert int(parts.learned) == 20
    assert not torch.equal(other.learn(x).indices, codes.indices)


def test_rows_become_sets() -> None:
    x = torch.tensor([[3.0, -5, 1, 2, 0], [-1, -1, -1, 4, -1], [-1, 0, -2, 0, -1]])
    assert SparseDistributed(d_in=5).sets(x).int().tolist() == [[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    memory = SparseDistributed(d_in=5, active=2)
    assert memory.sets(x).int().tolist() == [[1, 0, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert memory.learn(x).offsets.tolist() == [0, 64, 128, 128]
    assert int(memory.learned) == 2
    assert len(memory.encode(x)) == 3


def test_overlap_counts_shared_features_of_any_code() -> None:
    codes = torch.tensor([[1.0, 0, -2, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    found = overlap(Latents.from_dense(codes), Latents.from_dense(codes[[0, 2]]))
    assert torch.allclose(found, torch.tensor([[1, 0.5], [0, 0], [0.5, 1]]))


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="winners is 0, but a size is at least 1"):
        SparseDistributed(d_in=5, winners=0)
    with pytest.raises(ValueError, match="active is 6, but a size is at least 1, and active at most d_in = 5"):
        SparseDistributed(d_in=5, active=6)
    with pytest.raises(ValueError, match=r"x has shape \[1, 4\], but this SparseDistributed takes \[n, 5\]"):
        SparseDistributed(d_in=5).learn(torch.zeros(1, 4))
    assert int(SparseDistributed.fit(MemoryStore.from_values(_sets(30)), rows=10).learned) == 10
