import pytest
import torch

from analyses.dictionary.token_classes import TOKEN_CLASSES, Label, item_columns, possible_labels, token_columns
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
    labels = possible_labels(tagged, ["package"], pieces=3, min_count=2)
    assert [str(label) for label in labels[:2]] == ["package: p0", "package: p1"]
    assert sum(label.key == "token" for label in labels) == 3
    assert item_columns(tagged, labels).tolist() == [[0, 1, 0, 1]]
    rows = tagged.span(0, len(tagged))
    columns = token_columns(tagged, labels, rows.example.numpy(), rows.position.numpy())
    for row in range(len(rows)):
        piece, before = TEXT[row % 10], TEXT[row % 10 - 1] if row % 10 else ""
        expected = {
            label for label in labels if label.key == "token class" and TOKEN_CLASSES[label.value](piece, before)
        }
        expected |= {Label("token", piece)} & set(labels)
        assert {labels[i] for i in columns[:, row] if i >= 0} == expected


def test_rare_values_are_no_labels(tagged):
    assert not any(label.key == "package" for label in possible_labels(tagged, ["package"], pieces=0, min_count=3))
