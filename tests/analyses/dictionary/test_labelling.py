import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from analyses.dictionary import labelling
from analyses.dictionary.labelling import best_labels, evaluate_labels
from analyses.dictionary.ranking import Scores
from interp.stores.memory import MemoryStore
from interp.types import Activations, Item, Latents

WORDS = [" the", " 42", "(", " Class", " snake_case", "ing", " of", "\n", " MAX", ","]


class Written:
    """Directions that read the codes off the activations."""

    signed, trainable, site, labels, provenance, W_enc = False, False, None, {}, {}, None

    def __init__(self, d):
        self.d_in = self.d_sae = d
        self.W_dec = torch.eye(d)

    def encode(self, x):
        return Latents.from_dense(x.relu())

    def decode(self, latents):
        return latents.dense()


def written_store(seed):
    """Feature 0 fires on digits, 1 on ' the', 2 in items of package p1 (at one token), 3 anywhere, 4 never."""
    rng = np.random.default_rng(seed)
    items, values, example, position = [], [], [], []
    for i in range(90):
        pieces, package = rng.choice(WORDS, 30), f"p{i % 3}"
        x = np.zeros((30, 5), np.float32)
        x[:, 0] = np.where(pieces == " 42", rng.uniform(1, 2, 30), np.where(rng.random(30) < 0.05, 0.5, 0))
        x[:, 1] = np.where(pieces == " the", rng.uniform(1, 2, 30), 0)
        x[rng.integers(30), 2] = 2.0 if package == "p1" else 0.5
        x[:, 3] = np.maximum(rng.normal(size=30), 0)
        items.append(Item(pieces=tuple(pieces), labels={"package": package}))
        values.append(x)
        example += [i] * 30
        position += range(30)
    rows = Activations(torch.from_numpy(np.concatenate(values)), torch.tensor(example), torch.tensor(position))
    return MemoryStore(rows, items=items)


def test_planted_labels_are_found_and_hold_on_other_rows():
    directions = Written(5)
    chosen = best_labels(directions, written_store(0), ["package"])
    held_out = evaluate_labels(directions, written_store(1), chosen)
    names = {f: name for f, (name, _) in held_out.best().items()}
    assert names[0] in ("token class: digit", "token: ' 42'")
    assert names[1] == "token: ' the'"
    assert names[2] == "package: p1"
    assert 4 not in names
    assert set(held_out.best(at_least=0.95)) == {0, 1, 2}
    assert np.array_equal(chosen.choice, held_out.choice)


def test_a_label_of_few_held_out_items_has_no_score():
    """30 of 90 items bear p1, 60 do not."""
    directions = Written(5)
    chosen = best_labels(directions, written_store(0), ["package"])
    for min_count, scored in ((30, True), (31, False)):
        found = evaluate_labels(directions, written_store(1), chosen, min_count=min_count).best()
        assert (found.get(2, ("",))[0] == "package: p1") is scored


def test_every_auroc_equals_scikit_learn():
    directions, store = Written(5), written_store(0)
    found = best_labels(directions, store, ["package"], candidates=6)
    x = store.span(0, len(store)).values.numpy()
    pieces = np.array([piece for item in store.items for piece in item.pieces])
    package = np.array([item.labels["package"] for item in store.items])
    checked = 0
    for f in range(4):
        for label, area in zip(found.choice[f], found.auroc[f], strict=True):
            if label < 0:
                continue
            name = found.labels[label]
            if name.key == "token":
                expected = roc_auc_score(pieces == name.value, x[:, f])
            elif name.key == "package":
                expected = roc_auc_score(package == name.value, x[:, f].reshape(90, 30).max(1))
            else:
                continue
            assert area == pytest.approx(expected, abs=1e-13)
            checked += 1
    assert checked >= 8


def test_candidates_come_best_first_and_rare_features_have_none():
    found = best_labels(Written(5), written_store(0), ["package"], min_count=20)
    assert (found.choice[4] == -1).all() and np.isnan(found.auroc[4]).all()
    assert (np.diff(found.auroc[:4], axis=1) <= 0).all()


def test_a_feature_of_few_firings_has_no_score():
    """Feature 2 fires 90 times."""
    directions = Written(5)
    found = best_labels(directions, written_store(0), ["package"], min_count=100)
    assert (found.choice[1] >= 0).any() and (found.choice[2] == -1).all()
    for scored in (found, evaluate_labels(directions, written_store(1), found)):
        assert np.isnan(scored.auroc[found.choice < 0]).all() and not np.isnan(scored.auroc[found.choice >= 0]).any()


def test_stores_without_text_or_labels(planted):
    store = MemoryStore.from_values(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)))
    found = best_labels(Written(5), store)
    assert found.best() == {}
    with pytest.raises(ValueError, match=r"labels has 'package', but no item of the store bears it: choose among"):
        best_labels(Written(5), store, ["package"])
    with pytest.raises(ValueError, match="candidates is 0 and min_count 20"):
        best_labels(Written(5), store, candidates=0)


@pytest.mark.parametrize("cells", [1 << 22, 20])
@pytest.mark.parametrize("signed", [False, True])
def test_the_promising_labels_are_those_of_the_best_point_of_the_curve(signed, cells, monkeypatch):
    """Twelve labels in two columns, worked out label by label over dense scores, in chunks of any size."""
    monkeypatch.setattr(labelling, "_CHUNK_CELLS", cells)
    rng = np.random.default_rng(0)
    n, d, labels, least = 300, 9, 12, 30
    dense = rng.normal(size=(n, d)).astype(np.float32) * (rng.random((n, d)) < np.linspace(0, 0.6, d))
    dense = dense if signed else np.abs(dense)
    columns = np.stack([rng.integers(-1, 6, n), rng.integers(6, 12, n)]).astype(np.int32)
    columns[1, rng.random(n) < 0.7] = -1
    rows, features = dense.nonzero()
    scores = Scores.collect(dense[rows, features], features, rows, n, d)
    expected = np.full((d, 3), -1)
    for f in range(d):
        x = dense[:, f]
        gains = {}
        for label in range(labels):
            marks = (columns == label).any(0)
            if least <= marks.sum() <= n - least and (x != 0).sum() >= least:
                bounds = (0, max(x[x != 0].mean(dtype=np.float64), 0))
                gains[label] = max((x[marks] > b).mean() - (x[~marks] > b).mean() for b in bounds)
        best = sorted(gains, key=lambda label: -gains[label])[:3]
        expected[f, : len(best)] = best
    found = labelling._promising(scores, columns, labels, 3, least)
    np.testing.assert_array_equal(found, expected)
    assert (expected >= 0).sum() > 12 and (expected < 0).any()


def test_held_out_items_may_lack_a_label():
    directions, held_out = Written(5), written_store(1)
    chosen = best_labels(directions, written_store(0), ["package"])
    bare = MemoryStore(held_out.span(0, len(held_out)), items=[Item(pieces=item.pieces) for item in held_out.items])
    whole, found = (evaluate_labels(directions, store, chosen) for store in (held_out, bare))
    of_items = np.array([label.of_items for label in chosen.labels])[chosen.choice]
    assert np.isnan(found.auroc[of_items]).all() and not np.isnan(whole.auroc[of_items & (chosen.choice >= 0)]).any()
    np.testing.assert_array_equal(found.auroc[~of_items], whole.auroc[~of_items])
