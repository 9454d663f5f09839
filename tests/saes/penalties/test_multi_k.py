import pytest

from saes.multi_topk import MultiTopK
from saes.penalties.multi_k import MultiK


def test_without_further_latents_it_is_the_loss_again(rows, randomised, step_of) -> None:
    """Where k is all there is, both reconstructions are the same."""
    sae = randomised(MultiTopK(d_in=6, d_sae=16, k=16)).train()
    step = step_of(sae, rows(20))
    expected = 0.5 * step.residual.square().sum() / 20
    assert MultiK(coefficient=0.5)(step).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MultiK has coefficient -0\.1, but it is at least 0"):
        MultiK(coefficient=-0.1)
