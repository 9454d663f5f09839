import pytest
import torch

from saes.baselines.random import Random


@pytest.mark.parametrize(("d_sae", "k"), [(64, None), (64, 3), (4, 2)])
def test_no_other_scale_of_the_codes_is_better(store, d_sae: int, k: int | None) -> None:
    random = Random.fit(store, d_sae=d_sae, k=k, rows=None)
    x = store.span(0, 600).values
    centred, recon = x - x.mean(0), random(x) - x.mean(0)
    error = {scale: float((centred - scale * recon).square().sum()) for scale in (0.99, 1.0, 1.01)}
    assert error[1.0] < min(error[0.99], error[1.01])
    assert error[1.0] < float(centred.square().sum())
    assert torch.allclose(random.b_dec, x.mean(0), atol=1e-5)


def test_directions_are_uniform_on_the_sphere() -> None:
    directions = Random(d_in=8, d_sae=20_000).W_dec
    assert torch.allclose(directions.norm(dim=1), torch.ones(20_000), atol=1e-5)
    assert float(directions.mean(0).norm()) < 0.02
    assert torch.allclose(directions.T @ directions / 20_000, torch.eye(8) / 8, atol=5e-3)
    # Uniform, not only isotropic: the fourth moment of a coordinate is 3 / (d (d + 2)).
    assert directions.pow(4).mean() == pytest.approx(3 / 80, rel=0.02)
    assert not torch.equal(Random(d_in=8, d_sae=3, seed=1).W_dec, Random(d_in=8, d_sae=3).W_dec)
