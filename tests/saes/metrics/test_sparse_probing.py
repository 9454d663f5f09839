import json

import numpy as np
import pytest
import torch

from interp.stores.memory import MemoryStore
from interp.types import Activations, Item
from saes.metrics.sparse_probing import sparse_probing
from saes.probes.samples import gather
from saes.probes.sparse_linear import fit_sparse


@pytest.fixture
def stores() -> tuple[MemoryStore, MemoryStore]:
    """Channels of which one tells each of three kinds, and the same turned so that none does; 300 pairs of rows."""
    generator = torch.Generator().manual_seed(0)
    kind = (torch.arange(300) % 3).repeat_interleave(2)
    values = torch.randn(600, 12, generator=generator) + 2.0 * torch.eye(12)[kind]
    values = values + torch.randn(300, 12, generator=generator).repeat_interleave(2, 0)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
    items = [Item(labels={"kind": f"kind{i % 3}"}) for i in range(300)]

    def store(rows: torch.Tensor) -> MemoryStore:
        return MemoryStore(Activations(rows, torch.arange(600) // 2, torch.arange(600) % 2), items=items)

    return store(values), store(values @ turn)


def auroc(scores: torch.Tensor, positive: torch.Tensor) -> float:
    pairs = scores[positive][:, None] - scores[~positive]
    return float(((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean())


def test_values_equal_a_loop_over_pairs_and_classes(stores):
    sample = gather(stores[0], "kind")
    found, test = sparse_probing(sample, (1, 3)), sample.only("test")
    for k in (1, 3):
        areas, accuracies = [], []
        for c, name in enumerate(sample.classes):
            probe = fit_sparse(sample.versus_rest(name), k, balanced=True)
            scores = probe.scores(test)[:, 1] - probe.scores(test)[:, 0]
            positive = test.labels == c
            areas.append(auroc(scores, positive))
            accuracies.append(
                float(((scores[positive] > 0).double().mean() + (scores[~positive] <= 0).double().mean()) / 2)
            )
            assert found.per_class[k][name] == pytest.approx(areas[-1])
        assert found.auroc[k].value == pytest.approx(np.mean(areas))
        assert found.accuracy[k].value == pytest.approx(np.mean(accuracies))
    assert found.auroc[3].value > 0.85
    assert set(json.loads(json.dumps(found.to_json(), allow_nan=False))) == {"auroc", "accuracy", "per_class"}


def test_ties_count_a_half():
    rows = (torch.arange(300) % 4 == 0).float()[:, None].repeat(1, 2)
    labels = ((torch.arange(300) % 4 == 0) | (torch.arange(300) % 8 == 1)).long()
    sample = gather(MemoryStore.from_values(rows), labels)
    test = sample.only("test")
    found = sparse_probing(sample, (1,))
    assert found.auroc[1].value == pytest.approx(auroc(test.codes[:, 0], test.labels == 1))
    assert found.per_class[1]["1"] == pytest.approx(found.auroc[1].value)


def test_the_interval_is_that_of_auroc_resampled_by_example(stores):
    sample = gather(stores[0], (torch.arange(300) % 3 == 0).long())
    found = sparse_probing(sample, (1,), resamples=2000).auroc[1]
    test = sample.only("test")
    probe = fit_sparse(sample.versus_rest("1"), 1, balanced=True)
    scores = probe.scores(test)[:, 1]
    examples = test.example.unique()
    draws = np.random.default_rng(0)
    rows_of = {int(e): (test.example == e).nonzero()[:, 0] for e in examples}
    slow = []
    for _ in range(400):
        rows = torch.cat([rows_of[int(e)] for e in draws.choice(examples.numpy(), len(examples))])
        slow.append(auroc(scores[rows], test.labels[rows] == 1))
    low, high = np.quantile(slow, (0.025, 0.975))
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)
    assert found.low == pytest.approx(low, abs=0.02)


def test_a_basis_that_tells_kinds_apart_beats_one_that_does_not_at_equal_k(stores):
    good, turned = (sparse_probing(gather(store, "kind"), (1, 12)) for store in stores)
    above = good.above(turned)
    assert above[1].low > 0.02
    assert above[1].value == pytest.approx(good.auroc[1].value - turned.auroc[1].value)
    assert abs(above[12].value) < 0.02  # All channels span the same space.
    paired = above[12].high - above[12].low
    assert paired < 0.5 * (good.auroc[12].high - good.auroc[12].low)
    same = good.above(good)
    assert same[1].low == same[1].value == same[1].high == 0


def test_other_examples_cannot_be_paired(stores):
    one, other = (sparse_probing(gather(stores[0], "kind", seed=s), (1,), resamples=0) for s in (0, 1))
    with pytest.raises(ValueError, match=r"other was measured on other examples"):
        one.above(other)
