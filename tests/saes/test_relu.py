import torch

from saes.penalties.l1 import L1
from saes.relu import ReLU


@torch.no_grad()
def test_relu_is_the_slow_one(randomised) -> None:
    for d_sae in (64, 37):
        sae = randomised(ReLU(d_in=6, d_sae=d_sae).double())
        x = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        slow = torch.stack([torch.relu((row - sae.b_dec) @ sae.W_enc + sae.b_enc) for row in x])
        torch.testing.assert_close(sae.encode(x).dense(), slow, rtol=1e-12, atol=1e-12)
        assert len(sae.encode(x).values) == int((slow > 0).sum())


def test_the_default_penalty_makes_them_few() -> None:
    assert ReLU(d_in=6, d_sae=64).default_penalties() == (L1(),)
