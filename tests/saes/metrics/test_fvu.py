from dataclasses import replace

import pytest
import torch

from saes.metrics.base import Rows
from saes.metrics.fvu import FVU


def fvu(rows: Rows) -> float:
    return float(FVU().value(FVU().statistics(rows).sum(dim=0)))


def test_equals_one_minus_r_squared_of_scikit_learn_style_sums(rows):
    error = deviation = 0.0
    for x, recon in zip(rows.x.tolist(), rows.recon.tolist(), strict=True):
        for j in range(6):
            error += (x[j] - recon[j]) ** 2
            deviation += (x[j] - float(rows.mean[j])) ** 2
    assert fvu(rows) == pytest.approx(error / deviation, rel=1e-6)


def test_closed_forms(rows):
    assert fvu(replace(rows, recon=rows.x)) == 0
    assert fvu(replace(rows, recon=rows.mean.float().expand_as(rows.x))) == pytest.approx(1, rel=1e-6)
    assert fvu(replace(rows, recon=2 * rows.mean.float() - rows.x)) == pytest.approx(4, rel=1e-6)
    zero = fvu(replace(rows, recon=torch.zeros_like(rows.x)))
    assert zero == pytest.approx(float(rows.x.square().sum() / (rows.x - rows.mean).square().sum()), rel=1e-6)


def test_invariant_to_units_and_shifts(rows):
    moved = Rows(rows.x * 7 + 2, rows.recon * 7 + 2, rows.latents, rows.mean * 7 + 2, rows.origin)
    assert fvu(moved) == pytest.approx(fvu(rows), rel=1e-5)


def test_a_far_mean_costs_no_digits(rows):
    far = Rows(rows.x.double() + 1e6, rows.recon.double() + 1e6, rows.latents, rows.mean + 1e6, rows.origin)
    assert fvu(far) == pytest.approx(fvu(rows), rel=1e-6)
