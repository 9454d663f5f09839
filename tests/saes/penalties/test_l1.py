import pytest
import torch

from interp.types import Latents
from saes.penalties.l1 import L1
from saes.relu import ReLU


def test_l1_is_the_sum_of_latents_times_decoder_norms(step_of) -> None:
    sae = ReLU(d_in=2, d_sae=3)
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]]))
    latents = Latents.from_dense(torch.tensor([[2.0, 0.0, 1.0], [0.0, 5.0, 0.0]]))
    step = step_of(sae, torch.zeros(2, 2), latents)
    assert L1(coefficient=0.5)(step).item() == pytest.approx(0.5 * (2 * 5 + 1 * 10 + 5 * 1) / 2)


def test_the_coefficient_rises_from_zero(step_of, randomised) -> None:
    sae = randomised(ReLU(d_in=4, d_sae=8))
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    values = [L1(warmup=0.2)(step_of(sae, x, progress=progress)).item() for progress in (0.0, 0.1, 0.2, 0.9)]
    assert values[0] == 0
    assert values[1] == pytest.approx(values[2] / 2)
    assert values[2] == values[3] == L1(warmup=0.0)(step_of(sae, x, progress=0.0)).item()


@pytest.mark.parametrize("wrong", [{"coefficient": -1.0}, {"warmup": 1.5}, {"warmup": -0.1}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"L1 has coefficient .* warmup .* choose such values"):
        L1(**wrong)
