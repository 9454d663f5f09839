import numpy as np
import pytest
import torch

from analyses.dictionary.token_classes import (
    CLASS_KEY,
    PIECE_KEY,
    TOKEN_CLASSES,
    Label,
    Said,
    item_columns,
    possible_labels,
    token_columns,
)
from interp.stores.memory import MemoryStore
from interp.types import Activations, Item

TEXT = (" The", " snake", "_", "case", "42", " (", "NASA", "\n", " é", ",")


@pytest.fixture
def tagged():
    items = [Item(pieces=TEXT, labels={"package": f"p{i % 2}"}) for i in range(4)]
    example = torch.arange(4).repeat_interleave(len(TEXT))
    rows = Activations(torch.ones(len(example), 2), example, torch.arange(len(TEXT)).repeat(4))
    return MemoryStore(rows, items=items)


@pytest.mark.parametrize(
    "name, members",
    {
        "digit": {"42"},
        "punctuation": {"_", " (", ","},
        "bracket": {" ("},
        "capitalised": {" The"},
        "upper case": {"NASA"},
        "identifier with underscore": {"_"},
        "subword continuation": {"42"},
        "whitespace-led": {" The", " snake", " (", "\n", " é"},
        "line break": {"\n"},
    }.items(),
)
def test_token_classes(name, members):
    found = {piece for piece, before in zip(TEXT, ("", *TEXT), strict=False) if TOKEN_CLASSES[name](piece, before)}
    assert found == members


def test_columns_name_the_labels_of_rows_and_items(tagged):
    said = Said(tagged.items, ["package"])
    labels = possible_labels(said, pieces=3, min_count=2)
    assert [str(label) for label in labels[:2]] == ["package: p0", "package: p1"]
    assert sum(label.key == "token" for label in labels) == 3
    assert item_columns(said, labels).tolist() == [[0, 1, 0, 1]]
    rows = tagged.span(0, len(tagged))
    columns = token_columns(said, labels, rows.example.numpy(), rows.position.numpy())
    for row in range(len(rows)):
        piece, before = TEXT[row % 10], TEXT[row % 10 - 1] if row % 10 else ""
        expected = {
            label for label in labels if label.key == "token class" and TOKEN_CLASSES[label.value](piece, before)
        }
        expected |= {Label("token", piece)} & set(labels)
        assert {labels[i] for i in columns[:, row] if i >= 0} == expected


def random_items(rng):
    """Texts of many lengths, some empty; some items lack the first label, and some have it without content."""
    kinds = ("a", "b", "", None)
    return [
        Item(
            pieces=tuple(rng.choice(TEXT, rng.integers(0, 9)).tolist()),
            labels={"size": f"s{i % 2}"} | ({"kind": kind} if (kind := kinds[rng.integers(4)]) is not None else {}),
        )
        for i in range(60)
    ]


def test_labels_are_those_counted_by_a_loop():
    items = random_items(np.random.default_rng(0))
    pieces = [piece for item in items for piece in item.pieces]
    expected = []
    for key in ("size", "kind"):
        borne = [item.labels[key] for item in items if key in item.labels]
        expected += [Label(key, value) for value in sorted(set(borne)) if borne.count(value) >= 16]
    expected += [Label(CLASS_KEY, name) for name in TOKEN_CLASSES]
    ranked = sorted(set(pieces), key=lambda piece: (-pieces.count(piece), piece))[:6]
    expected += [Label(PIECE_KEY, piece) for piece in ranked if pieces.count(piece) >= 16]
    assert possible_labels(Said(items, ["size", "kind"]), pieces=6, min_count=16) == expected


def test_columns_equal_a_loop_over_rows_and_items():
    """Rows may lie beyond the text, as those of a closing special token do."""
    items = random_items(np.random.default_rng(1))
    said = Said(items, ["size", "kind"])
    labels = possible_labels(said, pieces=4, min_count=1)
    for line, key in enumerate(("kind", "size")):
        found = [labels[i].value if i >= 0 else None for i in item_columns(said, labels)[line]]
        assert found == [item.labels.get(key) for item in items]
    example = np.repeat(np.arange(60), 10)
    position = np.tile(np.arange(10), 60)
    columns = token_columns(said, labels, example, position)
    assert columns.shape == (len(TOKEN_CLASSES) + 1, 600)
    for column, i, place in zip(columns.T, example, position, strict=True):
        text = ("", *items[i].pieces)
        expected = set()
        if place < len(items[i].pieces):
            piece, before = text[place + 1], text[place]
            expected = {Label(CLASS_KEY, name) for name, holds in TOKEN_CLASSES.items() if holds(piece, before)}
            expected |= {Label(PIECE_KEY, piece)} & set(labels)
        assert {labels[number] for number in column if number >= 0} == expected


def test_rare_values_are_no_labels(tagged):
    labels = possible_labels(Said(tagged.items, ["package"]), pieces=0, min_count=3)
    assert labels == [Label(CLASS_KEY, name) for name in TOKEN_CLASSES]
