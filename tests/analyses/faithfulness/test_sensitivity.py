"""Max-sensitivity: closed forms, and a loop over moves."""

from typing import Any

import pytest
import torch

from analyses.faithfulness.sensitivity import Sensitivity, largest_change


def test_equals_a_loop_over_moves(case: Any) -> None:
    given, judge = case(), Sensitivity(samples=4)
    found = judge(given)
    moves = [judge._moved(given.inputs.tensors["x"], i) - given.inputs.tensors["x"] for i in range(4)]
    assert all(0.018 < float(move.abs().max()) <= 0.02 for move in moves)
    for i in range(4):
        changes = []
        for move in moves:
            inputs = type(given.inputs)({"x": given.inputs.tensors["x"] + move})
            maps = given.again(inputs)
            changes.append(float((maps[i] - given.maps[i]).norm() / given.maps[i].norm()))
        assert float(found[i]) == pytest.approx(max(changes), rel=1e-12)


def test_of_maps_that_do_not_move_it_is_0_and_of_the_input_the_move() -> None:
    maps = torch.rand(3, 4, 4, dtype=torch.float64)
    assert largest_change(maps, [maps, maps]).tolist() == [0, 0, 0]
    assert largest_change(maps, [maps, 1.5 * maps]).tolist() == pytest.approx([0.5] * 3)
    assert largest_change(0 * maps, [maps]).tolist() == pytest.approx(maps.flatten(1).norm(dim=1).tolist())


def test_tokens_and_wrong_arguments_are_refused(text_case: Any) -> None:
    with pytest.raises(ValueError, match=r"input_ids holds torch.int64, which does not move a little"):
        Sensitivity()(text_case())
    with pytest.raises(ValueError, match=r"radius is 0\.0"):
        Sensitivity(radius=0.0)
