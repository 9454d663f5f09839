from typing import Any

import pytest
import torch

from analyses.maps import Maps
from analyses.plots.map_beside_heat import map_beside_heat
from interp.types import Geometry

GEOMETRY = {"late": Geometry("grid", grid=(2, 2)), "early": Geometry("grid", grid=(4, 4))}


def _maps(**changes: Any) -> Maps:
    values = {("early", "HiResCAM"): torch.rand(3, 4, 4) - 0.5, ("early", "NormGrad"): torch.rand(3, 4, 4)}
    return Maps(**{"values": values, "scores": torch.arange(3.0), "geometries": GEOMETRY} | changes)


def _heat(n: int = 3, features: tuple[int, ...] = (7,)) -> Maps:
    return Maps({("late", "heat"): torch.rand(n, len(features), 2, 2)}, None, GEOMETRY, None, features)


def test_the_heat_comes_first_and_each_map_once() -> None:
    figure = map_beside_heat(_maps(), _heat())
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert labels == ["late\nheat", "early\nHiResCAM", "early\nNormGrad"]
    assert len(figure.axes) == 9 and figure.axes[2].get_title() == "2"


def test_other_heat_is_refused() -> None:
    for wrong in (_heat(2), _heat(3, (1, 2))):
        with pytest.raises(ValueError, match="but one feature's heat stands beside maps of its score"):
            map_beside_heat(_maps(), wrong)
