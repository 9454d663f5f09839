"""What bfloat16 inputs may change: which entries near the border are kept, and nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine import products, selection
from saes.engine.dense import DenseLatents
from saes.engine.passes import decode
from saes.engine.products import is_low, low_precision, product
from saes.engine.scratch import Scratch
from saes.engine.stacking import Stack
from saes.jumprelu import JumpReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

METHODS = {
    "TopK": lambda: TopK(d_in=6, d_sae=64, k=5),
    "BatchTopK": lambda: BatchTopK(d_in=6, d_sae=64, k=2),
    "JumpReLU": lambda: JumpReLU(d_in=6, d_sae=64),
}
EACH = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())


@EACH
def test_gradients_are_those_of_a_dense_pass_over_the_chosen_entries(make: Callable[[], SAE], rows, randomised) -> None:
    sae, watch = randomised(make()).train(), torch.tensor([1, 7, 40])
    x = rows(200).requires_grad_()
    leaves = [x, *sae.parameters()]

    def loss(recon: Tensor, watched: Tensor) -> Tensor:
        return recon.sin().sum() + watched.cos().sum()

    with low_precision(True):
        encoded = sae.encoded(x, watch=watch)
    latents = encoded.latents
    found = torch.autograd.grad(loss(decode(latents, sae.W_dec, sae.b_dec)[0], encoded.watched), leaves)
    pre_acts = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    kept = torch.zeros_like(pre_acts, dtype=torch.bool)
    kept[latents.rows, latents.indices] = True
    codes = sae.activate(pre_acts, DenseLatents(pre_acts.detach()))[0] * kept
    expected = torch.autograd.grad(loss(codes @ sae.W_dec + sae.b_dec, pre_acts[:, watch]), leaves)
    torch.testing.assert_close(latents.dense(), codes, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.count_nonzero() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@EACH
def test_only_entries_near_the_border_are_chosen_otherwise(make: Callable[[], SAE], rows, randomised) -> None:
    sae, x = randomised(make()).train(), rows(2000)
    with low_precision(True):
        low = sae.codes(x)
    full, kept = sae.codes(x), torch.zeros(2, len(x), sae.d_sae, dtype=torch.bool)
    for mask, latents in zip(kept, (low, full), strict=True):
        mask[latents.rows, latents.indices] = True
    centred = (x - sae.b_dec).detach()
    pre_acts = (centred @ sae.W_enc + sae.b_enc).detach()
    if isinstance(sae, TopK):
        border = pre_acts.topk(sae.k, dim=1).values[:, -1:]
    else:
        border = sae.bound() if isinstance(sae, JumpReLU) else pre_acts[kept[1]].min()
    # Both inputs and the result are rounded to 8 bits; an entry and the one it displaces err in opposite directions.
    rounding = 2**-8 * (2 * centred.abs() @ sae.W_enc.abs() + pre_acts.abs() + sae.b_enc.abs()).detach()
    differs = kept[0] != kept[1]
    assert 0 < differs.sum() < 0.05 * kept[1].sum()
    assert ((pre_acts - border).abs() <= 2 * rounding.amax(dim=1, keepdim=True))[differs].all()


def test_the_bias_is_multiplied_along_with_twice_the_bits(rows) -> None:
    W, b = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)), torch.linspace(-701.3, 903.7, 9)
    x_low, W_low = products._low_inputs(rows(20), W, b)
    assert x_low.dtype == W_low.dtype == torch.bfloat16
    assert x_low.shape[1] % 8 == W_low.shape[1] % 8 == 0
    expected = rows(20).bfloat16().double() @ W.bfloat16().double().T + b
    torch.testing.assert_close(x_low.double() @ W_low.double().T, expected, rtol=0, atol=900 * 2**-16)


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_rows_first_in_memory_as_on_a_gpu_changes_nothing(low: bool, count: int, rows, monkeypatch) -> None:
    """Hooks are given the same numbers, transposed, without a copy."""
    monkeypatch.setattr(selection, "CHUNK_ROWS", 30)
    x, watch, found, given, real = rows(100), torch.tensor([0, 9]), [], [], TopK.candidates
    monkeypatch.setattr(TopK, "candidates", lambda sae, z, context: (given.append(z), real(sae, z, context))[1])
    for swapped in (False, True):
        for module in (products, selection):
            monkeypatch.setattr(module, "by_row", lambda device, by_feature, swapped=swapped: swapped)
        saes = [TopK(d_in=6, d_sae=64, k=3, seed=s).train() for s in range(count)]
        dense = saes[0].encoded(x, as_dense=True).latents
        with low_precision(low):
            encoded = Stack(saes).encode(x, None, [watch] * 3) if count == 3 else [saes[0].encoded(x, watch=watch)]
        assert all((z.stride(0) == 1) == swapped for z in given)
        assert len(given) == 4 * (1 + count)
        given.clear()
        found.append([part for one in encoded for part in (one.latents.dense(), one.watched)] + [dense.values])
    for ours, theirs in zip(*found, strict=True):
        differs = ~torch.isclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert differs.float().mean() <= (5e-3 if low else 0)  # A CPU's bfloat16 results tie.


def test_weights_are_rounded_once_a_step(rows, monkeypatch) -> None:
    monkeypatch.setattr(selection, "CHUNK_ROWS", 10)
    rounded, saes = [], [TopK(d_in=6, d_sae=64, k=3, seed=s) for s in range(3)]
    real = products._low_inputs
    monkeypatch.setattr(products, "_low_inputs", lambda x, W, b: (rounded.append(len(W)), real(x, W, b))[1])
    with low_precision(True):
        saes[0].codes(rows(100))
        Stack(saes).encode(rows(100), None, [None] * 3)
    assert rounded == [64, 3 * 64]


def test_the_switch_is_for_the_choice_of_a_step_alone(store) -> None:
    seen = []

    def look(step) -> Tensor:
        seen.append(is_low())
        return step.recon.new_zeros(())

    class Failing(TopK):
        def candidates(self, pre_acts: Tensor, context) -> selection.Candidates:
            seen.append(is_low())
            if len(seen) == 3:
                raise InterruptedError
            return super().candidates(pre_acts, context)

    config = TrainConfig(tokens=640, batch_size=64, precision="bfloat16")
    trainer = Trainer([Job(Failing(d_in=6, d_sae=32, k=3), penalties=(look,))], config, store)
    batch = next(store.batches(64, seed=0))
    trainer.step(batch)
    with pytest.raises(InterruptedError):
        trainer.step(batch)
    trainer.jobs[0].sae.encode(batch.values)
    assert seen == [True, False, True, False]


def test_training_ends_at_nearly_the_same_error(store) -> None:
    ends = []
    for precision in ("float32", "bfloat16"):
        about = {"precision": precision, "path": "sparse", "dead_tokens": 1000, "log_every": 1}
        config = TrainConfig(tokens=60 * 200, batch_size=200, **about)
        jobs, found = [Job(make(), name=name) for name, make in METHODS.items()], []
        Trainer(jobs, config, store, progress=False, observers=[found.append]).run()
        ends.append([sum(metrics[job].fvu for metrics in found[-20:]) / 20 for job in range(3)])
        assert all(end < 0.2 * first.fvu for end, first in zip(ends[-1], found[0], strict=True))
    assert all(full != low for full, low in zip(*ends, strict=True))
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("by_feature", [False, True])
def test_a_gpus_product_is_float32(low: bool, by_feature: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x, W, b = torch.randn(40, 70, generator=draw), torch.randn(90, 70, generator=draw), torch.randn(90, generator=draw)
    with low_precision(low):
        chunk = product(x.cuda(), W.T.cuda(), b.cuda(), by_feature=by_feature, scratch=Scratch())(slice(8, 24))
    if low:
        x, W = x.bfloat16(), W.bfloat16()
    expected = (x.double() @ W.double().T + b).T
    assert chunk.dtype == torch.float32
    torch.testing.assert_close(
        chunk.cpu().double(), expected[8:24] if by_feature else expected[:, 8:24], rtol=1e-4, atol=1e-4
    )
