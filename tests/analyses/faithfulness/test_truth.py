"""The judges that know where the object is, against counting."""

from typing import Any

import pytest
import torch

from analyses.faithfulness.energy_pointing_game import EnergyPointingGame
from analyses.faithfulness.localisation_iou import LocalisationIoU
from analyses.faithfulness.pointing_game import PointingGame
from interp.types import Site


def _at(case: Any, *maps: torch.Tensor) -> Any:
    given = torch.stack(maps).double()
    return case(slice(0, len(maps)), attributor=lambda *_: given)


def _spot(row: int, column: int) -> torch.Tensor:
    spot = torch.zeros(6, 7)
    spot[row, column] = 2.0
    return spot


def test_pointing_on_beside_and_nowhere(case: Any) -> None:
    given = _at(case, _spot(2, 1), _spot(1, 1), _spot(0, 0), torch.ones(6, 7))
    assert PointingGame()(given).tolist() == pytest.approx([1, 0, 0, 9 / 42])
    assert PointingGame(1)(given).tolist() == pytest.approx([1, 1, 0, 25 / 42])
    assert PointingGame(2)(given).tolist()[:3] == [1, 1, 1]
    two = _spot(2, 1) + _spot(0, 6)
    assert PointingGame()(_at(case, two)).tolist() == [0.5]


def test_energy_is_that_of_positive_values(case: Any) -> None:
    mixed = _spot(3, 2) + 3 * _spot(0, 0) - 10 * _spot(5, 5)
    found = EnergyPointingGame()(_at(case, mixed, -_spot(3, 2), torch.zeros(6, 7)))
    assert found.tolist() == pytest.approx([0.25, 9 / 42, 9 / 42])


def test_overlap_of_as_many_positions_or_of_those_over_a_threshold(case: Any) -> None:
    truth = case().truth[0].double()
    moved = torch.roll(truth, 1, 1)
    given = _at(case, truth, moved, 1 - truth)
    assert LocalisationIoU()(given).tolist() == pytest.approx([1, 6 / 12, 0])
    assert LocalisationIoU(0.5)(given).tolist() == pytest.approx([1, 6 / 12, 0])
    soft = truth + 0.4 * moved
    assert LocalisationIoU(0.2)(_at(case, soft)).tolist() == pytest.approx([9 / 12])
    assert LocalisationIoU(0.5)(_at(case, soft)).tolist() == pytest.approx([1])
    assert LocalisationIoU(0.5)(_at(case, torch.ones(6, 7))).tolist() == pytest.approx([9 / 42])


def test_maps_of_a_layer_are_grown_to_the_input(case: Any) -> None:
    given = torch.zeros(4, 3, 4, dtype=torch.float64)
    given[:, 1, 1] = 1  # rows 2 and 3, columns 2 and 3 of the input
    assert PointingGame()(case(attributor=lambda *_: given, site=Site("second"))).tolist() == [1] * 4


def test_what_is_no_truth_is_refused(case: Any) -> None:
    numbers = case().truth.to(torch.uint8)  # as `scenes` gives them
    assert torch.equal(PointingGame()(case(truth=numbers)), PointingGame()(case()))
    with pytest.raises(ValueError, match="truth is None, but this judge compares"):
        PointingGame()(case(truth=None))
    with pytest.raises(ValueError, match=r"truth has shape \[4, 6, 6\], but maps of the input \[4, 6, 7\]"):
        PointingGame()(case(truth=torch.ones(4, 6, 6, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"truth of examples \[0, 1, 2, 3\] has no position"):
        PointingGame()(case(truth=torch.zeros(4, 6, 7, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"maps have the grid \[2, 2\], but input has"):
        PointingGame()(case(attributor=lambda *_: torch.ones(4, 2, 2)))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="tolerance is -1"):
        PointingGame(-1)
    with pytest.raises(ValueError, match=r"threshold is 1\.0"):
        LocalisationIoU(1.0)
