import numpy as np
import pytest

from analyses.dictionary.histograms import bin_edges, bins_of, number_of_bins, occupied, quantiles_of


@pytest.mark.parametrize("signed", [False, True])
def test_every_value_lies_in_its_bin(signed):
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(0, 4, 3000)).astype(np.float32)
    values = np.concatenate([values, 2.0 ** np.arange(-15, 15, dtype=np.float32)])  # Borders themselves.
    values = values * rng.choice([-1, 1], len(values)).astype(np.float32) if signed else values
    edges, bins = bin_edges(signed), bins_of(values, signed)
    assert len(edges) == number_of_bins(signed) + 1 and (np.diff(edges) > 0).all()
    inside = (np.abs(values) >= 2.0**-16) & (np.abs(values) < 2.0**16)
    low, high = edges[bins], edges[bins + 1]
    positive = values > 0
    assert (((low <= values) & (values < high)) | ~positive | ~inside).all()
    assert (((low < values) & (values <= high)) | positive | ~inside).all()


def test_values_beyond_the_ends_go_to_the_end_bins():
    values = np.array([1e-30, 1e30, -1e-30, -1e30], np.float32)
    n = number_of_bins(True)
    assert bins_of(values, True).tolist() == [n // 2, n - 1, n // 2 - 1, 0]


def test_bins_are_a_quarter_of_an_octave_at_most_a_fourth_wide():
    edges = bin_edges(False)[1:]
    assert (edges[1:] / edges[:-1]).max() == 1.25


@pytest.mark.parametrize("signed", [False, True])
def test_quantiles_are_off_by_less_than_a_bin(signed):
    rng = np.random.default_rng(1)
    x = rng.normal(1, 2, (3, 5000)).astype(np.float32)
    x = x if signed else np.abs(x)
    bins = number_of_bins(signed)
    histogram = np.stack([np.bincount(bins_of(row, signed), minlength=bins) for row in x])
    shares = np.array([0.0, 0.05, 0.5, 0.95, 1.0])
    found = quantiles_of(histogram, bin_edges(signed), x.min(1), x.max(1), shares)
    expected = np.quantile(x, shares, axis=1).T
    assert (np.abs(found - expected) <= 0.25 * np.abs(expected) + 0.05).all()
    np.testing.assert_array_equal(found[:, [0, -1]], np.stack([x.min(1), x.max(1)], 1))


def test_a_silent_feature_has_no_quantiles_and_one_bin():
    histogram = np.zeros((2, number_of_bins(False)), np.int64)
    empty = np.full(2, np.nan, np.float32)
    assert np.isnan(quantiles_of(histogram, bin_edges(False), empty, empty, np.array([0.5]))).all()
    assert occupied(histogram) == slice(0, 1)
    histogram[1, [7, 12]] = 1
    assert occupied(histogram) == slice(7, 13)
