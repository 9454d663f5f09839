import pytest
import torch

from saes.gated import Gated
from saes.penalties.gate_l1 import GateL1
from saes.penalties.l1 import L1


def test_where_gate_and_size_are_one_it_is_l1(rows, step_of) -> None:
    sae = Gated(d_in=6, d_sae=16)  # As it starts: no scale, equal biases.
    with torch.no_grad():
        sae.W_dec *= 3
    for about in ({}, {"on_sphere": True}, {"progress": 0.02}):
        step = step_of(sae, rows(20), **about)
        assert GateL1(0.5)(step).item() == pytest.approx(L1(0.5)(step).item(), rel=1e-6)


def test_sizes_are_not_shrunk(rows, randomised, step_of) -> None:
    sae = randomised(Gated(d_in=6, d_sae=16))
    GateL1()(step_of(sae, rows(20))).backward()
    assert sae.b_enc.grad.any()
    assert sae.r_mag.grad is None
    assert sae.b_mag.grad is None


@pytest.mark.parametrize("wrong", [{"coefficient": -1.0}, {"warmup": 1.5}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"GateL1 has coefficient .* warmup .* choose such values"):
        GateL1(**wrong)
