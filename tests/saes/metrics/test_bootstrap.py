import numpy as np
import pytest
import torch

from saes.metrics.bootstrap import Interval, bootstrap


def mean(totals):
    return totals[..., 0] / totals[..., 1]


def statistics(values: torch.Tensor) -> torch.Tensor:
    return torch.stack([values, torch.ones_like(values)], dim=1).double()


def test_value_and_width_of_a_mean_equal_the_normal_interval():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    interval = bootstrap(statistics(values), mean, resamples=2000)
    half = 1.96 * float(values.std(correction=0)) / 20
    assert interval.value == pytest.approx(float(values.mean()))
    assert interval.high - interval.value == pytest.approx(half, rel=0.1)
    assert interval.value - interval.low == pytest.approx(half, rel=0.1)


def test_coverage_of_the_true_mean_is_about_95_percent():
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for trial in range(100):
        values = torch.empty(80).exponential_(generator=generator)
        interval = bootstrap(statistics(values), mean, resamples=200, seed=trial)
        hits += interval.low <= 1.0 <= interval.high
    assert 87 <= hits <= 99


def test_resampled_totals_equal_a_loop_over_examples():
    values = torch.arange(7).double()
    totals = []
    bootstrap(statistics(values), lambda t: totals.append(t) or mean(t), resamples=5, seed=3)
    whole, resampled = totals
    assert whole.tolist() == [21, 7]
    assert (resampled[:, 1] == 7).all()
    assert len({float(total) for total in resampled[:, 0]}) > 1


def test_groups_of_many_examples_keep_value_and_width():
    values = torch.randn(40_000, generator=torch.Generator().manual_seed(0)).double()
    interval = bootstrap(statistics(values), mean, resamples=500)
    assert interval.value == pytest.approx(float(values.mean()))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 200, rel=0.15)


def test_draws_are_a_function_of_the_seed_and_no_global_state_moves():
    values = statistics(torch.randn(50, generator=torch.Generator().manual_seed(0)))
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    first, again = bootstrap(values, mean, seed=1), bootstrap(values, mean, seed=1)
    assert first == again != bootstrap(values, mean, seed=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_one_example_or_no_resamples_have_no_interval():
    assert bootstrap(statistics(torch.ones(1)), mean) == Interval(1.0)
    assert bootstrap(statistics(torch.ones(9)), mean, resamples=0) == Interval(1.0, None, None)
    assert str(Interval(0.12345, 0.1, 0.2)) == "0.1235 [0.1, 0.2]"
