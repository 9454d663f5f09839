import pytest
import torch
from torch import nn

from saes.engine import optimizing
from saes.topk import TopK


def _with_gradients(seed: int = 0) -> TopK:
    sae = TopK(d_in=5, d_sae=16, k=3)
    draw = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        # As autograd gives them: in the strides of the parameter.
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=draw))
    return sae


def _update(sae: TopK, clip: float | None, optimizer=None, *, good: bool = True) -> optimizing.Adam:
    optimizer = optimizer or optimizing.Adam(sae, (0.9, 0.99))
    norm = optimizing.gradient_norm(sae)
    optimizing.update(sae.W_dec, optimizer, lr=0.1, clip=clip, norm=norm, good=torch.tensor(good))
    return optimizer


def test_fused_adam_on_transposed_memory_equals_the_plain_loop() -> None:
    sae = TopK(d_in=5, d_sae=16, k=3)
    assert sae.W_enc.stride() == (1, 5)
    plain = {name: nn.Parameter(p.detach().clone().contiguous()) for name, p in sae.named_parameters()}
    fused = optimizing.Adam(sae, (0.9, 0.99))
    slow = torch.optim.Adam(plain.values(), lr=1e-2, betas=(0.9, 0.99), foreach=False, fused=False)
    for step in range(5):
        for name, p in _with_gradients(step).named_parameters():
            sae.get_parameter(name).grad = p.grad
            plain[name].grad = p.grad.contiguous()
        fused.step(1e-2)
        slow.step()
    for name, p in sae.named_parameters():
        torch.testing.assert_close(p, plain[name], rtol=1e-6, atol=1e-7)
    assert sae.W_enc.stride() == (1, 5)


def test_the_parallel_gradient_is_removed_and_rows_stay_on_the_sphere() -> None:
    sae = _with_gradients()
    before = sae.W_dec.grad.clone()
    optimizing.remove_parallel(sae.W_dec)
    inner = (before * sae.W_dec).sum(1, keepdim=True)
    torch.testing.assert_close(sae.W_dec.grad, before - inner * sae.W_dec.detach())
    assert (sae.W_dec.grad * sae.W_dec).sum(1).abs().max() < 1e-6
    _update(sae, None)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(16))


@pytest.mark.parametrize("clip", [0.5, 1e6, None])
def test_clipping_shortens_all_gradients_together(clip: float | None) -> None:
    """The first averages are a tenth of the clipped gradients."""
    sae = _with_gradients()
    gradients = torch.cat([p.grad.flatten() for p in sae.parameters()])
    norm = optimizing.gradient_norm(sae)
    torch.testing.assert_close(norm, gradients.norm())
    optimizer = _update(sae, clip)
    factor = 1.0 if clip is None else min(1.0, clip / float(norm))
    averages = torch.cat([optimizer.state[p]["exp_avg"].flatten() for p in sae.parameters()])
    torch.testing.assert_close(10 * averages, gradients * factor)
    assert all(p.grad is None for p in sae.parameters())


def test_a_bad_step_changes_no_bit() -> None:
    sae = _with_gradients()
    optimizer = _update(sae, 1.0)
    before = [p.detach().clone() for p in sae.parameters()]
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    for name, p in _with_gradients(1).named_parameters():
        sae.get_parameter(name).grad = p.grad
    sae.b_enc.grad[3] = torch.nan
    _update(sae, 1.0, optimizer, good=False)
    assert all(torch.equal(now, then) for now, then in zip(sae.parameters(), before, strict=True))
    after = [value for state in optimizer.state.values() for value in state.values()]
    assert all(torch.equal(now, then) for now, then in zip(after, moments, strict=True))


def test_blocks_change_nothing(monkeypatch) -> None:
    whole, parts = _with_gradients(), _with_gradients()
    monkeypatch.setattr(optimizing, "BLOCK", 15)  # Three rows, and one left over.
    optimizing.remove_parallel(parts.W_dec)
    _update(parts, 1.0)
    monkeypatch.undo()
    optimizing.remove_parallel(whole.W_dec)
    _update(whole, 1.0)
    torch.testing.assert_close(parts.W_dec, whole.W_dec)
