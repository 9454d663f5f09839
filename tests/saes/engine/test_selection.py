from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine import selection
from saes.engine.choices import row_top_k
from saes.engine.selection import Context, concatenated
from saes.topk import TopK


def test_parts_of_different_numbers_of_pairs_a_row_are_rows_of_any_length() -> None:
    context = Context(training=True, n=4)
    two, one = (row_top_k(torch.ones(3, 2), k, context) for k in (2, 1))
    both = concatenated([two, replace(one, rows=one.rows + 2)])
    assert both.k is None
    assert both.support(4, 3, by_feature=False).offsets.tolist() == [0, 2, 4, 5, 6]
    assert concatenated([two, two]).k == 2


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
            monkeypatch.setattr(selection, "CHUNK_ENTRIES", chunk * len(x))
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
    monkeypatch.setattr(selection, "CHUNK_ENTRIES", 32 * 2048)
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
