import pytest

from saes.gated import Gated
from saes.penalties.gate_aux import GateAux


def test_where_gate_and_size_are_one_it_is_the_loss_again(rows, step_of) -> None:
    step = step_of(Gated(d_in=6, d_sae=16), rows(20))  # As it starts: no scale, equal biases.
    assert GateAux(coefficient=0.5)(step).item() == pytest.approx(0.5 * step.residual.square().sum().item() / 20)


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GateAux has coefficient -0\.1, but it is at least 0"):
        GateAux(coefficient=-0.1)
