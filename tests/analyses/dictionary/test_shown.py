import numpy as np
import torch

from analyses.dictionary.shown import Shown
from interp.stores.memory import MemoryStore
from interp.types import Activations, Item


class Counted(list):
    """Items that say how often each was read."""

    def __init__(self, items):
        super().__init__(items)
        self.reads = [0] * len(items)

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


def items_and_store():
    image = torch.full((2, 2, 3), 7, dtype=torch.uint8)
    items = Counted([Item(pieces=("x", str(i)), labels={"b": str(i), "a": "é"}, image=image) for i in range(5)])
    rows = Activations(torch.ones(5, 2), torch.arange(5), torch.zeros(5, dtype=torch.long))
    store = MemoryStore(rows, items=items)
    items.reads = [0] * 5  # The checks of types have looked into them.
    return items, store


def test_each_shown_item_is_read_once():
    items, store = items_and_store()
    shown = Shown(store, np.array([1, 4]), None)
    assert items.reads == [0, 1, 0, 0, 1]
    assert shown.texts == ["x1", "x4"]
    assert shown.pieces.vocabulary == ["x", "1", "4"] and shown.pieces.ids.tolist() == [0, 1, 0, 2]
    assert shown.labels == ['{"a": "é", "b": "1"}', '{"a": "é", "b": "4"}']
    assert all(image is not None and (image == 7).all() for image in shown.images)


def test_pieces_given_apart_take_the_place_of_the_items_own():
    items, store = items_and_store()
    shown = Shown(store, np.array([0, 2]), [["p"], ["q"], ["r", "p"], [], []])
    assert items.reads == [1, 0, 1, 0, 0]
    assert shown.texts == ["p", "rp"] and shown.labels[1] == '{"a": "é", "b": "2"}'
    assert shown.pieces.lengths.tolist() == [1, 2]
