import torch

from saes.parametrizations.linear_basis import LinearBasis
from saes.topk import TopK


def test_a_step_on_one_row_moves_all_rows_and_leaves_the_basis() -> None:
    sae = TopK(d_in=6, d_sae=32, k=1, parametrization={"class": "LinearBasis"})
    free = TopK(d_in=6, d_sae=32, k=1)
    assert torch.equal(sae.W_dec, free.W_dec), "it starts where a free decoder does"
    moved = {}
    for name, one in (("linear", sae), ("free", free)):
        before = one.W_dec.detach().clone()
        one.decode(one.encode(one.W_enc.T[:1].detach() * 3)).sin().sum().backward()
        with torch.no_grad():
            for parameter in one.parameters():
                if parameter.grad is not None and parameter.ndim == 2:
                    parameter.sub_(0.1 * parameter.grad)
        moved[name] = int(((one.W_dec - before).abs().sum(1) > 0).sum())
    assert moved == {"linear": 32, "free": 1}
    assert torch.equal(sae.parametrization.basis, TopK(d_in=6, d_sae=32).W_dec)


def test_the_decoder_is_the_basis_times_the_map() -> None:
    made = LinearBasis(directions=torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        made.map.copy_(torch.arange(9.0).view(3, 3))
    torch.testing.assert_close(made(), made.basis @ made.map)
    assert [name for name, _ in made.named_parameters()] == ["map"]
