from dataclasses import replace

import pytest
import torch

from interp.pretrain.measures import ridge_probe
from interp.types import Latents
from saes.probes.ridge import Gram, fit_ridge
from saes.probes.samples import gather


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 20
    x[:, 3] = 4
    return x, (x[:, 0] + torch.randn(3000, generator=generator) > 20).long()


def test_closed_form(rows):
    x, labels = rows
    weight = Gram(5, 2).add(x, labels).fits([0.3])[0]
    x = x.double()
    std = x.std(0, correction=0)
    z, targets = (x - x.mean(0)) / torch.where(std > 0, std, 1), torch.nn.functional.one_hot(labels).double()
    slow = torch.linalg.solve(
        z.T @ z + 0.3 * 3000 * torch.eye(5, dtype=torch.float64), z.T @ (targets - targets.mean(0))
    )
    assert torch.allclose(x @ weight[:-1] + weight[-1], z @ slow + targets.mean(0), atol=1e-8)
    assert not weight[3].any()


def test_equals_scikit_learn(rows, needs):
    needs("sklearn")
    from sklearn.linear_model import Ridge

    x, labels = rows
    z = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0).clamp(min=1e-9)
    theirs = Ridge(alpha=0.01 * 3000).fit(z.numpy(), labels.numpy())
    weight = Gram(5, 2).add(x, labels).fits([0.01])[0]
    found = (x.double() @ weight[:-1] + weight[-1])[:, 1]
    assert torch.allclose(found, torch.from_numpy(theirs.predict(z.numpy())), atol=1e-7)


def test_sums_add_up_and_sparse_codes_are_codes(rows):
    x, labels = rows
    x = (x - 20).relu()
    whole = Gram(5, 2).add(x, labels)
    parts = Gram(5, 2).add(Latents.from_dense(x[:1100]), labels[:1100]) + Gram(5, 2).add(x[1100:], labels[1100:])
    assert torch.allclose(whole.sums, parts.sums)


def test_error_is_the_mean_squared_error(rows):
    x, labels = rows
    gram, weight = Gram(5, 2).add(x, labels), torch.randn(6, 2, dtype=torch.float64) * 0.01
    wrong = x.double() @ weight[:-1] + weight[-1] - torch.nn.functional.one_hot(labels)
    assert gram.error(weight) == pytest.approx(float(wrong.square().sum(1).mean()))


def test_predicts_as_the_probe_of_the_pretraining_judge(store):
    sample = gather(store, "kind")
    probe, test = fit_ridge(sample, penalties=[1e-3]), sample.only("test")
    seen = sample.only("train", "validation")
    judged = ridge_probe(seen.codes, seen.labels, seen.part == 1, test.codes)
    assert (probe.scores(test).argmax(1) == judged).float().mean() > 0.98
    assert probe.accuracy(sample).value > 0.6


def test_units_do_not_matter_and_test_rows_are_never_read(store):
    sample = gather(store, "kind")
    probe = fit_ridge(sample)
    scaled = replace(sample, codes=sample.codes * torch.logspace(-3, 3, 5))
    assert torch.allclose(fit_ridge(scaled).scores(scaled), probe.scores(sample), atol=1e-3)
    spoiled = replace(sample, codes=torch.where((sample.part == 2)[:, None], torch.nan, sample.codes))
    assert torch.equal(fit_ridge(spoiled).weight, probe.weight)


def test_validation_rows_choose_the_penalty(store):
    nothing = gather(store, torch.randint(2, (400,), generator=torch.Generator().manual_seed(1)))
    assert fit_ridge(nothing).provenance["l2"] >= 1
    assert fit_ridge(gather(store, "kind")).provenance["l2"] <= 0.1
