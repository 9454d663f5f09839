import numpy as np
import torch

from analyses.dictionary.accumulating import Accumulators
from analyses.dictionary.encoding import Codes
from analyses.dictionary.recipes import Recipe
from analyses.dictionary.selecting import QUANTILE, RANDOM, choose_examples


def codes_of(dense):
    rows, features = dense.nonzero()
    offsets = np.concatenate([[0], np.cumsum((dense != 0).sum(1))])
    n = len(dense)
    return Codes(dense[rows, features], features.astype(np.int32), offsets, np.arange(n), np.zeros(n, np.int64))


def continuous(n=4000, features=6):
    x = torch.randn(n, features, generator=torch.Generator().manual_seed(0)).numpy()
    return np.maximum(x - np.linspace(-1, 1, features), 0).astype(np.float32)


def test_quantile_bins_hold_examples_of_equally_many_firings():
    dense = continuous()
    accumulators = Accumulators(6, False, len(dense), Recipe())
    accumulators.add(codes_of(dense))
    chosen = choose_examples(accumulators, Recipe())
    for f in range(6):
        values = np.sort(dense[dense[:, f] > 0, f])
        mine = (chosen.feature == f) & (chosen.bin == QUANTILE)
        for q in range(5):
            shown = chosen.value[mine & (chosen.quantile == q)]
            assert len(shown) == 4
            shares = np.searchsorted(values, shown) / len(values)
            # The borders come from a histogram with four bins an octave: a little slack.
            assert (shares > q / 5 - 0.05).all() and (shares < (q + 1) / 5 + 0.05).all()


def test_random_examples_are_a_fair_sample():
    dense = continuous()
    counts = np.zeros(len(dense))
    for seed in range(60):
        recipe = Recipe(seed=seed)
        accumulators = Accumulators(6, False, len(dense), recipe)
        accumulators.add(codes_of(dense))
        chosen = choose_examples(accumulators, recipe)
        mine = (chosen.bin == RANDOM) & (chosen.feature == 0)
        counts[chosen.example[mine]] += 1
    active = dense[:, 0] > 0
    assert counts[~active].sum() == 0 and counts.sum() == 600
    # Of 600 draws over about 3400 firings, halves by place and by strength get 300 each, 12 one standard deviation.
    halves = [
        np.flatnonzero(active)[: active.sum() // 2],
        np.argsort(np.where(active, dense[:, 0], 9))[: active.sum() // 2],
    ]
    assert all(abs(counts[half].sum() - 300) < 50 for half in halves)
