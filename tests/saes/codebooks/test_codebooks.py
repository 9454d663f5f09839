"""What both codebooks keep, against the formulas of the papers."""

import math

import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from saes.codebooks.base import Codebook
from saes.codebooks.simvq import SimVQ
from saes.codebooks.vector_quantizer import VectorQuantizer

both = pytest.mark.parametrize("method", [VectorQuantizer, SimVQ])


def _book(method: type[Codebook], d_sae: int = 20, **own: float) -> Codebook:
    return method(d_in=6, d_sae=d_sae, **own).double()


@pytest.fixture
def z(rows) -> Tensor:
    return rows(40).double().requires_grad_()


@both
def test_the_loss_is_that_of_the_paper(method: type[Codebook], z: Tensor) -> None:
    book = _book(method, alpha=0.3, beta=2.0)
    found = book.quantize(z)
    words, expected = book.codewords(), 0.0
    for i, row in enumerate(z):
        distances = [float((row - word).detach().square().sum()) for word in words]
        q = words[distances.index(min(distances))]
        assert int(found.indices[i]) == distances.index(min(distances))
        assert torch.allclose(found.values[i], q)
        expected += 0.3 * (row - q.detach()).square().sum() + 2.0 * (row.detach() - q).square().sum()
    expected /= z.numel()
    assert torch.allclose(found.loss, expected)
    wanted = [z, *book.parameters()]
    for ours, slow in zip(torch.autograd.grad(found.loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        assert torch.allclose(ours, slow)
        assert ours.count_nonzero()


@both
def test_gradients_pass_straight_through(method: type[Codebook], z: Tensor) -> None:
    weights = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    book = _book(method)
    (book.quantize(z).values * weights).sum().backward()
    assert torch.equal(z.grad, weights)
    assert all(p.grad is None for p in book.parameters())


@both
def test_alpha_moves_the_encoder_and_beta_the_codebook(method: type[Codebook], z: Tensor) -> None:
    """Each weight belongs to one side; the authors' SimVQ has them the wrong way round by default."""
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0)):
        book = _book(method, alpha=alpha, beta=beta)
        grads = torch.autograd.grad(book.quantize(z).loss, [z, *book.parameters()])
        assert bool(grads[0].any()) == (alpha > 0)
        assert all(bool(grad.any()) == (beta > 0) for grad in grads[1:])


@both
def test_indices_stand_for_what_decode_gives(method: type[Codebook], store) -> None:
    for centre in (True, False):
        book = method.fit(store, d_sae=20, steps=10, centre=centre)
        x = store.span(0, 50).values
        latents = book.encode(x)
        assert torch.allclose(book.decode(latents), book.lookup(latents.indices), atol=1e-6)
        assert torch.allclose(book.quantize(x).values, book(x), atol=1e-5)
        assert book.lookup(latents.indices.view(10, 5)).shape == (10, 5, 6)
        # What is nearest to a codeword is that codeword.
        everything = torch.arange(20)
        assert torch.equal(book.encode(book.lookup(everything)).indices, everything)
        assert bool(book.b_dec.any()) == centre


def _rows_moved(method: type[Codebook]) -> int:
    book = _book(method, 50)
    before = book.W_dec.clone()
    row = before[7:8] + 0.01  # One row, near one codeword.
    book.quantize(row).loss.backward()
    with torch.no_grad():
        for parameter in book.parameters():
            parameter -= 0.1 * parameter.grad
    return int((book.W_dec != before).any(1).sum())


def test_a_step_moves_one_codeword_or_all() -> None:
    assert _rows_moved(VectorQuantizer) == 1
    assert _rows_moved(SimVQ) == 50


def test_simvq_uses_more_of_its_codebook(shifted) -> None:
    """Measured: 0.15 of 256 for the plain codebook, the same after 100 steps and after 400; 0.68 for SimVQ."""
    plain, sim = (
        method.fit(shifted, d_sae=256, steps=200, batch_size=256, centre=False).usage(shifted)
        for method in (VectorQuantizer, SimVQ)
    )
    assert plain.utilisation < 0.25
    assert sim.utilisation > 0.5
    assert sim.perplexity > 2 * plain.perplexity


def test_the_basis_of_simvq_stays(store) -> None:
    book = SimVQ.fit(store, d_sae=20, steps=10, seed=3)
    assert torch.equal(book.basis, SimVQ(d_in=6, d_sae=20, seed=3).basis)
    assert not torch.equal(book.basis, SimVQ(d_in=6, d_sae=20, seed=4).basis)
    assert SimVQ(d_in=64, d_sae=4000).basis.std() == pytest.approx(64**-0.5, rel=0.01)
    assert VectorQuantizer(d_in=64, d_sae=4000).words.detach().std() == pytest.approx(64**-0.5, rel=0.01)
    assert torch.allclose(book.W_dec, book.basis @ book.W.T + book.b, atol=1e-6)


def test_usage_counts_codewords() -> None:
    book = VectorQuantizer(d_in=2, d_sae=4)
    book.words.data = torch.tensor([[0.0, 0], [10, 0], [0, 10], [99, 99]])
    values = torch.tensor([[0.1, 0], [0, 0.1], [9, 0], [0, 12]])
    usage = book.usage(MemoryStore.from_values(values), batch_size=3)
    assert usage.counts.tolist() == [2, 1, 1, 0]
    assert usage.utilisation == 0.75
    assert usage.perplexity == pytest.approx(math.exp(1.5 * math.log(2)))


@both
def test_a_fit_lowers_the_error_whatever_the_units(method: type[Codebook], rows) -> None:
    x = rows(600)
    fits = {}
    for unit in (1.0, 1000.0):
        store = MemoryStore.from_values(unit * x)
        book = method.fit(store, d_sae=20, steps=60, batch_size=128)
        fits[unit] = float((x - book(unit * x) / unit).square().sum() / (x - x.mean(0)).square().sum())
    assert fits[1.0] < 0.5
    assert fits[1000.0] == pytest.approx(fits[1.0], rel=0.02)
    with pytest.raises(ValueError, match="steps is 0, but a codebook is trained in some"):
        method.fit(store, d_sae=20, steps=0)
