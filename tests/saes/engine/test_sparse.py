import pytest
import torch
from torch import Tensor

from interp.types import Latents
from saes.engine.sparse import decode, decode_watched, inner_products, kept_pre_acts, weighted_sums

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _support(n: int, d_sae: int, kind: str) -> Latents:
    if kind == "none":
        return Latents.from_dense(torch.zeros(n, d_sae, dtype=torch.float64))
    if kind == "fixed k":
        indices = _random(n, d_sae, seed=5).topk(3, dim=1).indices.sort(dim=1).values.flatten()
        return Latents(torch.ones(3 * n, dtype=torch.float64), indices, None, d_sae, k=3)
    codes = (_random(n, d_sae, seed=6) > 0.8).double()
    codes[1] = 0  # A row without codes, and a feature that never fires.
    codes[:, 2] = 0
    return Latents.from_dense(codes)


KINDS = ["any length", "fixed k", "none"]


@pytest.mark.parametrize("kind", KINDS)
def test_kept_pre_acts_and_their_gradients_are_the_dense_ones(kind: str) -> None:
    n, d_in, d_sae = 9, 4, 12
    support = _support(n, d_sae, kind)
    # The orientation of SAE.W_enc: the transpose of row-major memory.
    leaves = [_random(n, d_in, seed=0), _random(d_in, seed=1), _random(d_sae, d_in, seed=2).T, _random(d_sae, seed=3)]
    x, b_dec, W_enc, b_enc = (leaf.requires_grad_() for leaf in leaves)
    dense = ((x - b_dec) @ W_enc + b_enc)[support.rows, support.indices]
    sparse, watched = kept_pre_acts(x, b_dec, W_enc, b_enc, support.with_values(dense.detach()))
    assert watched is None
    weights = _random(len(dense), seed=4)
    expected = torch.autograd.grad((dense.sin() * weights).sum(), (x, b_dec, W_enc, b_enc), retain_graph=True)
    found = torch.autograd.grad((sparse.sin() * weights).sum(), (x, b_dec, W_enc, b_enc))
    assert torch.equal(sparse, dense)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_and_its_gradients_are_the_dense_ones(kind: str) -> None:
    n, d_in, d_sae = 9, 4, 12
    support = _support(n, d_sae, kind)
    W_dec = _random(d_sae, d_in, seed=0).requires_grad_()
    values = _random(len(support.indices), seed=1).requires_grad_()
    latents = support.with_values(values)
    sparse, dense = decode(latents, W_dec), latents.dense() @ W_dec
    torch.testing.assert_close(sparse, dense, **CLOSE)
    weights = _random(n, d_in, seed=2)
    expected = torch.autograd.grad((dense.sin() * weights).sum(), (values, W_dec))
    found = torch.autograd.grad((sparse.sin() * weights).sum(), (values, W_dec))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", ["both", "codes", "watched"])
def test_gradients_of_watched_features_join_those_of_the_codes(kind: str, used: str) -> None:
    n, d_in, d_sae, watch = 9, 4, 12, torch.tensor([1, 5, 11])
    support = _support(n, d_sae, kind)
    leaves = [_random(n, d_in, seed=0), _random(d_in, seed=1), _random(d_sae, d_in, seed=2).T, _random(d_sae, seed=3)]
    leaves = [leaf.requires_grad_() for leaf in [*leaves, _random(d_sae, d_in, seed=4)]]
    x, b_dec, W_enc, b_enc, W_dec = leaves
    dense = (x - b_dec) @ W_enc + b_enc

    def loss(codes: Tensor, recon: Tensor, watched: Tensor, rows: Tensor) -> Tensor:
        first = codes.sin().sum() + recon.cos().sum() if used != "watched" else 0
        return first + ((watched @ rows).tanh().sum() if used != "codes" else 0)

    kept = support.with_values(dense.detach()[support.rows, support.indices])
    codes, watched = kept_pre_acts(x, b_dec, W_enc, b_enc, kept, watch=watch, watched=dense.detach()[:, watch])
    recon, rows = decode_watched(kept.with_values(codes), W_dec, watch)
    found = torch.autograd.grad(loss(codes, recon, watched, rows), leaves, retain_graph=True)
    codes = dense[support.rows, support.indices]
    recon = support.with_values(codes).dense() @ W_dec
    expected = torch.autograd.grad(loss(codes, recon, dense[:, watch], W_dec[watch]), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_small_sums() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    indices, offsets, weights = torch.tensor([0, 2, 1]), torch.tensor([0, 2, 2, 3]), torch.tensor([3.0, 0.5, -1.0])
    assert weighted_sums(table, indices, offsets, weights).tolist() == [[4.0, 1.0], [0.0, 0.0], [0.0, -1.0]]
    support = Latents(weights, indices, offsets, 3)
    left = torch.tensor([[1.0, 2.0], [9.0, 9.0], [5.0, 7.0]])
    assert inner_products(left, table, support).tolist() == [1.0, 6.0, 7.0]


def test_both_backward_passes_share_one_sort() -> None:
    support = _support(9, 12, "any length")
    W_enc = _random(4, 12, seed=0).requires_grad_()
    kept_pre_acts(_random(9, 4, seed=1), torch.zeros(4).double(), W_enc, torch.zeros(12).double(), support)
    assert support.detach().by_feature is support.by_feature
    frozen = _support(9, 12, "any length")
    kept_pre_acts(_random(9, 4, seed=1), torch.zeros(4).double(), W_enc.detach(), torch.zeros(12).double(), frozen)
    assert "by_feature" not in vars(frozen)
