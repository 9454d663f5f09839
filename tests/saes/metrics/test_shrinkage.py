from dataclasses import replace

import pytest
import torch

from saes.metrics.base import Rows
from saes.metrics.shrinkage import Shrinkage


def shrinkage(rows: Rows) -> float:
    return float(Shrinkage().value(Shrinkage().statistics(rows).sum(dim=0)))


def test_is_the_least_squares_factor(rows):
    recon, x = (rows.recon - rows.origin).flatten(), (rows.x - rows.origin).flatten()
    factor = torch.linalg.lstsq(recon[:, None].double(), x[:, None].double()).solution
    assert shrinkage(rows) == pytest.approx(float(factor), rel=1e-6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_codes_scaled_by_c_give_one_over_c(rows, scale):
    recon = rows.origin + scale * (rows.x - rows.origin)
    assert shrinkage(replace(rows, recon=recon)) == pytest.approx(1 / scale, rel=1e-6)


def test_is_undefined_where_nothing_fires(rows):
    assert torch.tensor(shrinkage(replace(rows, recon=rows.origin.expand_as(rows.x)))).isnan()
