import pytest

from saes.metrics.l0 import L0


def test_is_the_mean_number_of_codes_a_row(rows):
    found = L0().value(L0().statistics(rows).sum(dim=0))
    assert float(found) == pytest.approx(float((rows.latents.dense() != 0).sum(dim=1).double().mean()))
