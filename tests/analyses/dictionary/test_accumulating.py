import pytest
import torch

from analyses.dictionary.accumulating import Accumulators
from analyses.dictionary.encoding import encode
from analyses.dictionary.recipes import Recipe
from interp.types import Activations


def added(planted, example, position, examples=3):
    rows = Activations(torch.ones(len(example), 6), torch.tensor(example), torch.tensor(position))
    accumulators = Accumulators(70, False, examples, Recipe())
    accumulators.add(encode(planted(), rows))
    return accumulators


@pytest.mark.parametrize("example, position", [([0, 0], [1, 1]), ([1, 0], [0, 0]), ([0, 0], [2, 1])])
def test_rows_must_ascend(planted, example, position):
    with pytest.raises(ValueError, match=r"sorted by \(example, position\), each address once: sort them"):
        added(planted, example, position)


def test_rows_must_ascend_from_batch_to_batch(planted):
    accumulators = added(planted, [1], [4])
    with pytest.raises(ValueError, match="each address once"):
        accumulators.add(encode(planted(), Activations(torch.ones(1, 6), torch.tensor([1]), torch.tensor([4]))))


def test_examples_need_items_and_positions_a_range(planted):
    with pytest.raises(ValueError, match="rows of example 7, but items for 3 examples: give an item for each"):
        added(planted, [7], [0])
    with pytest.raises(ValueError, match=r"a position is in 0\.\.16777215: cut longer examples"):
        added(planted, [0], [1 << 24])
