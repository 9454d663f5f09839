from dataclasses import replace

import pytest
import torch

from interp.types import Latents
from saes.probes.linear import fit_linear
from saes.probes.logistic import Fit
from saes.probes.samples import gather


def problem(classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator)
    scores = x @ torch.randn(6, classes, generator=generator) + torch.randn(200, classes, generator=generator)
    return x, scores.argmax(dim=1)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_solver_finds_where_autograd_says_the_loss_is_least(balanced):
    x, labels = problem(3)
    l2 = 0.02
    weight, bias = Fit(x, labels, 3, balanced=balanced).at(l2)
    x = x.double()
    std = x.std(0, correction=0)
    parts = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    class_weights = 1 / labels.bincount().double() if balanced else None
    loss = torch.nn.functional.cross_entropy(x @ parts[0] + parts[1], labels, weight=class_weights)
    loss += l2 / 2 * (parts[0] * std[:, None]).square().sum()
    for grad in torch.autograd.grad(loss, parts):
        assert grad.abs().max() < 1.1e-6


def test_equals_scikit_learn(needs):
    needs("sklearn")
    from sklearn.linear_model import LogisticRegression

    x, labels = problem(3)
    mean, std = x.double().mean(0), x.double().std(0, correction=0)
    ours, bias = Fit(x, labels, 3).at(0.02)
    # Theirs: C times the summed loss, plus half the squared weights.
    theirs = LogisticRegression(C=1 / (0.02 * 200), tol=1e-10, max_iter=10_000)
    theirs.fit(((x.double() - mean) / std).numpy(), labels.numpy())
    assert torch.allclose(ours * std[:, None], torch.from_numpy(theirs.coef_.T), atol=1e-5)
    scores = x.double() @ ours + bias
    probabilities = torch.from_numpy(theirs.predict_proba(((x.double() - mean) / std).numpy()))
    assert torch.allclose(scores.softmax(1), probabilities, atol=1e-5)


def test_sparse_codes_give_what_dense_ones_give():
    x, labels = problem(2)
    x = x.relu()
    dense, sparse = Fit(x, labels, 2).at(0.01), Fit(Latents.from_dense(x), labels, 2).at(0.01)
    for one, other in zip(dense, sparse, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_units_offsets_order_and_constant_features_change_no_score():
    x, labels = problem(3)
    weight, bias = Fit(x, labels, 3).at(0.01)
    scores = x.double() @ weight + bias
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    moved = torch.cat([x[:, order] * torch.logspace(-2, 2, 6) + 100, torch.full((200, 1), 7.0)], dim=1)
    other, other_bias = Fit(moved, labels, 3).at(0.01)
    assert torch.allclose(moved.double() @ other + other_bias, scores, atol=1e-3)
    assert not other[6].any()


def test_separable_classes_have_finite_weights_and_two_are_opposite():
    x = torch.cat([torch.randn(50, 2) + 5, torch.randn(50, 2) - 5])
    weight, bias = Fit(x, torch.arange(100) // 50, 2).at(1e-5)
    assert weight.isfinite().all()
    assert torch.allclose(weight[:, 0], -weight[:, 1], atol=1e-6)
    assert torch.equal((x.double() @ weight + bias).argmax(1), torch.arange(100) // 50)


def test_a_probe_reaches_the_bayes_rate(store):
    """Three Gaussians of unit variance, whatever the scale of a channel: the best rule is linear."""
    sample = gather(store, "kind")
    found = fit_linear(sample).accuracy(sample)
    generator = torch.Generator().manual_seed(9)
    means = torch.tensor([[1.5, 0], [0, 1.5], [0, 0]])
    labels = torch.randint(3, (100_000,), generator=generator)
    x = means[labels] + torch.randn(100_000, 2, generator=generator)
    best = float((torch.cdist(x, means).argmin(1) == labels).float().mean())
    assert found.low < best < found.high + 0.02
    assert found.value > best - 0.06


def test_test_rows_are_never_read(store):
    sample = gather(store, "kind")
    spoiled = replace(sample, codes=torch.where((sample.part == 2)[:, None], torch.nan, sample.codes))
    first, second = fit_linear(sample), fit_linear(spoiled)
    assert torch.equal(first.weight, second.weight)
    assert first.provenance["l2"] == second.provenance["l2"]


def test_validation_rows_choose_the_penalty(store):
    sample = gather(store, torch.randint(2, (400,), generator=torch.Generator().manual_seed(1)))
    assert fit_linear(sample).provenance["l2"] == 0.1  # Nothing to learn: the stronger, the better.
    clear = gather(store, (store.span(0, 1200).values[:, 4] > 0).long())
    assert fit_linear(clear).provenance["l2"] == 1e-5
    assert fit_linear(clear, penalties=[0.5]).provenance["l2"] == 0.5
