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


def test_fused_adam_on_transposed_memory_equals_the_plain_loop() -> None:
    sae = TopK(d_in=5, d_sae=16, k=3)
    assert sae.W_enc.stride() == (1, 5)
    plain = {name: nn.Parameter(p.detach().clone().contiguous()) for name, p in sae.named_parameters()}
    fused = optimizing.adam(sae, (0.9, 0.99))
    slow = torch.optim.Adam(plain.values(), lr=1e-2, betas=(0.9, 0.99), foreach=False, fused=False)
    for group in fused.param_groups:
        group["lr"] = 1e-2
    for step in range(5):
        for name, p in _with_gradients(step).named_parameters():
            sae.get_parameter(name).grad = p.grad
            plain[name].grad = p.grad.contiguous()
        fused.step()
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
    norm = optimizing.gradient_norm(sae)
    optimizing.update(sae, sae.W_dec, optimizing.adam(sae, (0.9, 0.99)), lr=0.1, clip=None, norm=norm)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(16))


@pytest.mark.parametrize("clip", [0.5, 1e6, None])
def test_clipping_shortens_all_gradients_together(clip: float | None) -> None:
    sae = _with_gradients()
    gradients = torch.cat([p.grad.flatten() for p in sae.parameters()])
    norm = optimizing.gradient_norm(sae)
    torch.testing.assert_close(norm, gradients.norm())
    optimizing.update(sae, sae.W_dec, optimizing.adam(sae, (0.9, 0.99)), lr=0.1, clip=clip, norm=norm)
    factor = 1.0 if clip is None else min(1.0, clip / float(norm))
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in sae.parameters()]), gradients * factor)
