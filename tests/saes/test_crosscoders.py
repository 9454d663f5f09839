import pytest
import torch

from interp.stores.concatenated import concatenated
from interp.stores.memory import MemoryStore
from saes.crosscoders import by_site, relative_norms, site_norms
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, train


def test_one_site_is_the_sae(randomised, step_of) -> None:
    sae = randomised(ReLU(d_in=6, d_sae=20).double())
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert L1(widths=(6,))(step_of(sae, x)).item() == pytest.approx(L1()(step_of(sae, x)).item(), rel=1e-12)


def test_two_sites_as_written(randomised, step_of) -> None:
    """One code from the sum of both encoders; errors of both; latents weighted by the sum of both norms."""
    sae = randomised(ReLU(d_in=6, d_sae=20).double())
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = by_site(x - sae.b_dec, (4, 2))
    W_a, W_b = sae.W_enc[:4], sae.W_enc[4:]
    codes = torch.relu(a @ W_a + b @ W_b + sae.b_enc)
    torch.testing.assert_close(sae.encode(x).dense(), codes)
    D_a, D_b = sae.W_dec[:, :4], sae.W_dec[:, 4:]
    expected = sum(codes[:, i].sum() * (D_a[i].norm() + D_b[i].norm()) for i in range(20)) / 9
    assert L1(widths=(4, 2), warmup=0.0)(step_of(sae, x)).item() == pytest.approx(expected.item(), rel=1e-12)
    assert L1(widths=(4, 2), warmup=0.0)(step_of(sae, x, on_sphere=True)).item() == pytest.approx(expected.item())
    torch.testing.assert_close(site_norms(sae.W_dec, (4, 2)).square().sum(0), sae.W_dec.square().sum(1))


def test_latents_of_one_site_alone_are_told_from_shared_ones(rows) -> None:
    """Sites that share their first half of features: relative norms say which latents are shared."""
    draw = torch.Generator().manual_seed(1)
    codes = (torch.rand(8000, 12, generator=draw) < 0.15) * (torch.rand(8000, 12, generator=draw) + 0.5)
    one, two = (
        torch.linalg.qr(torch.randn(16, 16, generator=draw)).Q[:12],
        torch.linalg.qr(torch.randn(16, 16, generator=draw)).Q[:12],
    )
    there = torch.tensor([1.0] * 4 + [1.0] * 4 + [0.0] * 4)
    here = torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4)
    stores = [
        MemoryStore.from_values((codes * part) @ W, site=s) for part, W, s in ((there, one, "a"), (here, two, "b"))
    ]
    store = concatenated(stores)
    config = TrainConfig(tokens=60_000, batch_size=256)
    sae = train(Job(TopK(d_in=32, d_sae=12, k=3)), store, config, progress=False)[0]
    truth = torch.cat([one * there[:, None], two * here[:, None]], dim=1)
    match = (truth / truth.norm(dim=1, keepdim=True)) @ sae.W_dec.detach().T
    parts = relative_norms(sae.W_dec.detach(), store.widths)[0][match.argmax(dim=1)]
    found = match.amax(dim=1) > 0.9
    assert int(found.sum()) >= 9
    expected = torch.tensor([0.5] * 4 + [1.0] * 4 + [0.0] * 4)
    assert float((parts - expected)[found].abs().max()) < 0.2


def test_widths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"widths are \[4, 3\], which add up to 7, but the rows have 6"):
        by_site(torch.zeros(2, 6), (4, 3))
