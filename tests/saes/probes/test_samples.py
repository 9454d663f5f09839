import pytest
import torch

from interp.stores.memory import MemoryStore
from interp.types import Activations, Item
from saes.probes.samples import gather, split


def test_split_is_of_whole_groups_a_function_of_the_seed_and_of_the_stated_size():
    groups = torch.arange(300) % 50
    part = split(groups, seed=1)
    assert all(len(part[groups == group].unique()) == 1 for group in range(50))
    assert torch.bincount(part).tolist() == [180, 60, 60]
    assert torch.equal(part, split(groups, seed=1))
    assert not torch.equal(part, split(groups, seed=2))
    assert split(torch.tensor([0, 1, 2, -1])).tolist()[3] == -1
    assert sorted(split(torch.arange(3)).tolist()) == [0, 1, 2]
    # Every group comes to every part.
    assert torch.stack([split(torch.arange(10), seed=s) for s in range(25)]).unique(dim=1).shape[1] == 10


@pytest.mark.parametrize(("n", "shares"), [(2, (0.6, 0.2, 0.2)), (9, (0.5, 0.2, 0.2)), (9, (1.0, 0.0, 0.0))])
def test_split_refuses_empty_parts(n, shares):
    with pytest.raises(ValueError, match=r"each of three parts needs at least one group"):
        split(torch.arange(n), shares)


def test_rows_of_an_example_and_of_a_family_stay_together(store):
    sample = gather(store, "kind", group="family")
    assert torch.equal(sample.codes, store.span(0, 1200).values)
    assert sample.classes == ("kind0", "kind1", "kind2")
    assert torch.equal(sample.labels, sample.example % 3)
    family = sample.example // 10
    assert all(len(sample.part[family == f].unique()) == 1 for f in range(40))
    assert sample.only("test").part.unique().tolist() == [2]
    assert len(sample.only("train", "validation")) + len(sample.only("test")) == 1200


def test_latents_stay_sparse_and_equal_the_dense_codes_however_they_are_read(store, both_signs):
    directions = both_signs(5)
    sample = gather(store, "kind", directions=directions, batch_size=7)
    x = store.span(0, 1200).values
    assert torch.equal(sample.codes.dense(), torch.cat([x, -x], dim=1).relu())
    kept = sample.only("validation")
    assert torch.equal(kept.codes.dense(), sample.codes.dense()[sample.part == 1])
    assert sample.provenance["directions"] == {"made": "by hand"}


def test_pooling_is_the_mean_of_an_example(store, both_signs):
    x = store.span(0, 1200).values
    raw, coded = gather(store, "kind"), gather(store, "kind", directions=both_signs(5))
    assert torch.allclose(raw.pooled().codes, x.view(400, 3, 5).mean(1), atol=1e-5)
    dense = torch.cat([x, -x], dim=1).relu().view(400, 3, 10).mean(1)
    pooled = coded.pooled()
    assert torch.allclose(pooled.codes.dense(), dense, atol=1e-5)
    assert torch.equal(pooled.labels, torch.arange(400) % 3)
    assert torch.equal(pooled.part, raw.part.view(400, 3)[:, 0])


def test_labels_by_row_some_classes_and_some_rows(store):
    by_row = torch.arange(1200) % 4 - 1  # One in four has none.
    sample = gather(store, by_row)
    assert len(sample) == 900
    assert sample.classes == ("0", "1", "2")
    assert torch.equal(sample.codes, store.span(0, 1200).values[by_row >= 0])
    two = gather(store, "kind", classes=["kind2", "kind0"], max_rows=600)
    assert set(two.example.tolist()) <= {i for i in range(400) if i % 3 != 1}
    assert two.classes == ("kind2", "kind0")
    assert torch.equal(two.labels, (two.example % 3 == 0).long())
    assert len(two) == sum(i // 3 % 3 != 1 for i in range(0, 1200, 2))


def test_one_class_against_the_rest(store):
    sample = gather(store, "kind").versus_rest("kind1")
    assert sample.classes == ("rest", "kind1")
    assert torch.equal(sample.labels, (sample.example % 3 == 1).long())
    with pytest.raises(ValueError, match=r"name is 'kind9', but the classes are kind0, kind1, kind2"):
        gather(store, "kind").versus_rest("kind9")


def test_errors(store):
    with pytest.raises(ValueError, match=r"no item of the store has the label 'sort': it has family, kind"):
        gather(store, "sort")
    with pytest.raises(ValueError, match=r"labels are 7, but the store has 400 items and 1200 rows"):
        gather(store, torch.zeros(7, dtype=torch.long))
    with pytest.raises(ValueError, match=r"never occur among the \w+ rows: leave rare ones out by classes="):
        gather(store, "family", group="family")
    with pytest.raises(ValueError, match=r"tells at least two apart"):
        gather(store, "kind", classes=["kind0"])


def test_items_without_the_label_are_left_out():
    items = [Item(labels={"kind": "ab"[i % 2]} if i % 3 else {}) for i in range(30)]
    rows = Activations(torch.randn(30, 2), torch.arange(30), torch.zeros(30, dtype=torch.long))
    sample = gather(MemoryStore(rows, items=items), "kind")
    assert sample.example.tolist() == [i for i in range(30) if i % 3]
