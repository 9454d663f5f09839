import numpy as np
import pytest

from analyses.dictionary.encoding import Codes
from analyses.dictionary.gathering import Windows, spread
from analyses.dictionary.selecting import Examples


@pytest.mark.parametrize("batch", [1, 9, 64, 500])
@pytest.mark.parametrize("zero", [0, 128])
def test_windows_equal_a_loop_however_rows_are_batched(batch, zero):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 25)
    example, position = np.repeat(np.arange(25), lengths), np.concatenate([np.arange(n) for n in lengths])
    left = rng.random(len(example)) < 0.8  # Some rows are left out of the store.
    dense = np.where(rng.random((len(example), 5)) < 0.3, rng.uniform(0.1, 1, (len(example), 5)), 0).astype(np.float32)
    dense = dense * (rng.choice([-1, 1], dense.shape).astype(np.float32) if zero else 1)
    scale = np.full(5, 1 / 120, np.float32)
    row, feature = rng.integers(0, len(example), 200), rng.integers(0, 5, 200)
    small, start = np.zeros(200, np.int8), np.maximum(position[row] - 4, 0)
    stop = np.minimum(position[row] + 7, lengths[example[row]])
    examples = Examples(feature, small, small, small.astype(np.int32), example[row], position[row], dense[row, feature])
    windows = Windows(examples, start, stop, scale, zero)
    kept = np.flatnonzero(left)
    for first in range(0, len(kept), batch):
        chosen = kept[first : first + batch]
        r, f = dense[chosen].nonzero()
        offsets = np.concatenate([[0], np.cumsum((dense[chosen] != 0).sum(1))])
        codes = dense[chosen][r, f].astype(np.float32)
        windows.add(Codes(codes, f.astype(np.int32), offsets, example[chosen], position[chosen]))
    flat = windows.flat(slice(0, 200))
    begins = np.cumsum(windows.length) - windows.length
    for i in range(200):
        expected = []
        for p in range(start[i], stop[i]):
            at = np.flatnonzero((example == example[row[i]]) & (position == p) & left)
            expected.append(zero + round(float(dense[at[0], feature[i]] / scale[0])) if len(at) else zero)
        assert flat[begins[i] : begins[i] + windows.length[i]].tolist() == expected


def test_spread_lists_the_integers_of_all_runs():
    assert spread(np.array([3, 0, 7]), np.array([5, 0, 8])).tolist() == [3, 4, 7]
    assert spread(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == []
