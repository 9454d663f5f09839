from dataclasses import replace

import pytest
import torch

from interp.types import Latents
from saes.probes.linear import fit_linear
from saes.probes.samples import gather
from saes.probes.sparse_linear import fit_sparse, ranked

SELECTIONS = ("mean_difference", "f_score", "sequential")


@pytest.mark.parametrize("select", SELECTIONS)
def test_the_features_that_carry_the_classes_are_found(store, select):
    sample = gather(store, "kind")
    units = replace(sample, codes=(sample.codes - sample.codes.mean(0)) / sample.codes.std(0))
    assert sorted(ranked(units, 2, select=select).tolist()) == [0, 1]
    probe = fit_sparse(units, 2, select=select)
    assert probe.weight[2:].count_nonzero() == 0
    assert probe.weight[:2].count_nonzero() == 6
    assert sorted(probe.features.tolist()) == sorted(probe.provenance["features"]) == [0, 1]
    assert probe.accuracy(units).value == pytest.approx(fit_linear(units).accuracy(units).value, abs=0.04)


def test_f_score_equals_scikit_learn(store, needs):
    needs("sklearn")
    from sklearn.feature_selection import f_classif

    from saes.probes.sparse_linear import _f_score

    sample = gather(store, "kind")
    theirs, _ = f_classif(sample.codes.double().numpy(), sample.labels.numpy())
    assert torch.allclose(_f_score(sample), torch.from_numpy(theirs), rtol=1e-6)


def test_mean_difference_equals_a_loop(store):
    sample = gather(store, "kind")
    seen = sample.only("train", "validation")
    slow = [
        max(
            float((seen.codes[seen.labels == c, j].mean() - seen.codes[seen.labels != c, j].mean()).abs())
            for c in range(3)
        )
        for j in range(5)
    ]
    assert ranked(sample, 5).tolist() == sorted(range(5), key=lambda j: -slow[j])


def test_units_move_the_mean_difference_alone(store):
    sample = gather(store, "kind")
    scaled = replace(sample, codes=sample.codes * torch.tensor([1, 1, 1, 100.0, 1]))
    for select in ("f_score", "sequential"):
        assert torch.equal(ranked(scaled, 3, select=select), ranked(sample, 3, select=select))
    assert ranked(scaled, 1).tolist() == [3]


@pytest.mark.parametrize("select", SELECTIONS)
def test_sparse_codes_and_permuted_features_give_the_same_choice(store, both_signs, select):
    sample = gather(store, "kind", directions=both_signs(5))
    dense = replace(sample, codes=sample.codes.dense())
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    permuted = replace(sample, codes=Latents.from_dense(sample.codes.dense()[:, order]))
    chosen = ranked(sample, 3, select=select)
    assert torch.equal(ranked(dense, 3, select=select), chosen)
    assert torch.equal(order[ranked(permuted, 3, select=select)], chosen)


def test_sequential_does_not_take_the_same_thing_twice():
    """Two copies of the best feature, and a weaker one that adds something."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 2
    best = labels * 2.0 + torch.randn(600, generator=generator)
    other = labels * 1.0 + torch.randn(600, generator=generator)
    copies = torch.stack([best, best + 0.1 * torch.randn(600, generator=generator), other], dim=1)
    from interp.stores.memory import MemoryStore

    sample = gather(MemoryStore.from_values(copies), labels)
    assert sorted(ranked(sample, 2, select="f_score").tolist()) == [0, 1]
    assert ranked(sample, 2, select="sequential").tolist()[1] == 2


def test_test_rows_are_never_read(store):
    sample = gather(store, "kind")
    told = sample.codes.clone()
    told[:, 4] = torch.where(sample.part == 2, 1e4 * sample.labels, told[:, 4])  # Whoever looks takes this one.
    spoiled = replace(sample, codes=told)
    for select in SELECTIONS:
        assert torch.equal(fit_sparse(spoiled, 2, select=select).weight, fit_sparse(sample, 2, select=select).weight)


def test_errors(store):
    sample = gather(store, "kind")
    with pytest.raises(ValueError, match=r"k is 6, but the rows have 5 features"):
        fit_sparse(sample, 6)
    with pytest.raises(ValueError, match=r"select is 'best', but it is one of mean_difference"):
        fit_sparse(sample, 1, select="best")
