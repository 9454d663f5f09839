import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine import selection
from saes.engine.selection import Candidates, above, concatenated, largest, row_top_k, top_rows
from saes.topk import TopK

SHAPES = [(3, 5, 2), (4, 16, 1), (7, 64, 32), (5, 64, 64), (9, 128, 4), (6, 1024, 8), (2, 2048, 32), (3, 4096, 5)]


@pytest.mark.parametrize(("n", "m", "k"), [*SHAPES, (1, 1000, 7), (1, 1, 1), (0, 512, 4), (11, 24_576, 32)])
def test_top_rows_are_those_of_topk(n: int, m: int, k: int) -> None:
    scores = torch.randn(n, m, generator=torch.Generator().manual_seed(m))
    values, indices = top_rows(scores, k)
    expected = scores.topk(k, dim=1)
    assert torch.equal(values.sort(dim=1, descending=True).values, expected.values)
    assert torch.equal(indices.sort(dim=1).values, expected.indices.sort(dim=1).values)
    assert torch.equal(scores.gather(1, indices), values)


@pytest.mark.parametrize(("n", "m", "k"), SHAPES)
def test_top_rows_with_ties_are_distinct_entries_with_the_largest_values(n: int, m: int, k: int) -> None:
    scores = torch.randint(3, (n, m), generator=torch.Generator().manual_seed(k)).float()
    values, indices = top_rows(scores, k)
    assert torch.equal(values.sort(dim=1, descending=True).values, scores.topk(k, dim=1).values)
    assert torch.equal(scores.gather(1, indices), values)
    assert all(len(row.unique()) == k for row in indices)


@pytest.mark.parametrize("m", [8, 64, 4096, 1, 7, 30, 1001])
@pytest.mark.parametrize("per_feature", [False, True])
def test_above_is_nonzero(m: int, per_feature: bool) -> None:
    draw = torch.Generator().manual_seed(m)
    pre_acts = torch.randn(13, m, generator=draw).round(decimals=1)  # Some entries equal the bound: they are left out.
    bound = torch.randn(m, generator=draw) if per_feature else 0.5
    found = above(pre_acts, bound, 40)
    rows, indices = (pre_acts > bound).nonzero(as_tuple=True)
    assert torch.equal(found.rows, rows + 40)
    assert torch.equal(found.indices, indices)
    assert torch.equal(found.values, pre_acts[rows, indices])


@pytest.mark.parametrize("m", [16, 17])
def test_above_of_nothing(m: int) -> None:
    assert above(torch.zeros(0, m), 0.0, 0).values.numel() == 0
    assert above(-torch.ones(3, m), 0.0, 0).values.numel() == 0


def test_row_top_k_leaves_out_what_is_not_positive() -> None:
    found = row_top_k(torch.tensor([[3.0, -1.0, 2.0], [-1.0, 0.0, 5.0]]), 2, 10)
    assert found.rows.tolist() == [10, 10, 11]
    assert found.indices.tolist() == [0, 2, 2]
    assert found.values.tolist() == [3.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ("values", "budget", "kept"),
    [
        ([1.0, 3.0, 2.0], 2, [1, 2]),
        ([1.0, 1.0, 2.0], 2, [0, 2]),  # The first two reach the border value, but the last is larger.
        ([1.0, 1.0, 1.0], 2, [0, 1]),
        ([1.0, 2.0], 5, [0, 1]),
        ([], 0, []),
    ],
)
def test_largest(values: list[float], budget: int, kept: list[int]) -> None:
    n = torch.arange(len(values))
    assert largest(Candidates(n, n, torch.tensor(values)), budget).rows.tolist() == kept


def test_chunks_of_full_and_of_short_rows_are_rows_of_any_length() -> None:
    full, short = row_top_k(torch.ones(2, 3), 2, 0), row_top_k(-torch.ones(2, 3), 2, 2)
    for parts in ([full, short], [short, full]):
        both = concatenated(sorted(parts, key=lambda part: part is short))
        assert both.k is None
        assert both.support(4, 3).offsets.tolist() == [0, 2, 4, 4, 4]
    assert concatenated([full, full]).k == 2


@pytest.mark.parametrize("method", [TopK, BatchTopK])
def test_chunk_borders_change_nothing(method: type[SAE], randomised, monkeypatch) -> None:
    sae = randomised(method(d_in=5, d_sae=64, k=3).double())
    x = torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[20] = sae.b_dec.detach()
    for training in (True, False):
        sae.train(training)
        whole = sae.encode(x)
        for chunk in (1, 7, 49):
            monkeypatch.setattr(selection, "CHUNK_ROWS", chunk)
            parts = sae.encode(x)
            assert torch.equal(parts.offsets, whole.offsets)
            assert torch.equal(parts.indices, whole.indices)
            assert torch.allclose(parts.values, whole.values, rtol=1e-12)
        monkeypatch.undo()


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave back."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("method", [TopK, BatchTopK])
@pytest.mark.parametrize("first", [True, False])
def test_nothing_larger_than_one_chunk_is_made(method: type[SAE], first: bool, randomised, monkeypatch) -> None:
    monkeypatch.setattr(selection, "CHUNK_ROWS", 32)
    sae = method(d_in=4, d_sae=2048, k=8)
    sae = sae if first else randomised(sae)
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with _Largest() as seen:
        (sae.train()(x) - x).square().sum().backward()
    assert x.grad is not None and sae.W_enc.grad is not None
    # The chunk's pre-activations were seen; before a threshold is known, half of them are candidates, in pairs.
    assert 32 * 2048 <= seen.numel <= 1.1 * 32 * 2048


@pytest.mark.parametrize("method", [TopK, BatchTopK])
def test_no_rows_give_no_latents(method: type[SAE], randomised) -> None:
    sae = randomised(method(d_in=4, d_sae=16, k=2))
    for training in (True, False):
        assert sae.train(training)(torch.zeros(0, 4)).shape == (0, 4)
