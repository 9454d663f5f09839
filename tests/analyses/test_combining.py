from typing import Any

import pytest
import torch

from analyses.combining import _weights, combine
from analyses.maps import Maps
from interp.types import Geometry


def _maps(*layers: torch.Tensor) -> Maps:
    geometry = Geometry("grid", grid=(2, 3), stride=(1, 1), input_size=(2, 3))
    names = [f"layer{i}" for i in range(len(layers))]
    return Maps(dict(zip([(name, "m") for name in names], layers, strict=True)), None, dict.fromkeys(names, geometry))


def _unit(values: torch.Tensor) -> torch.Tensor:
    flat = values.flatten(1)
    low, high = flat.amin(1)[:, None, None], flat.amax(1)[:, None, None]
    return (values - low) / (high - low)


FIRST, SECOND = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("how", ["product", "sum"])
@pytest.mark.parametrize("weights", ["uniform", "linear", "spread", [3.0, 1.0], [0.0, 1.0]])
def test_maps_that_are_alike_are_left_as_they_are(how: Any, weights: Any) -> None:
    torch.testing.assert_close(combine(_maps(FIRST, FIRST), how=how, weights=weights), _unit(FIRST))


def test_equals_the_papers_products_and_sums() -> None:
    a, b, maps = _unit(FIRST), _unit(SECOND), _maps(FIRST, SECOND)
    torch.testing.assert_close(combine(maps), (a * b).sqrt())
    torch.testing.assert_close(combine(maps, how="sum"), (a + b) / 2)
    torch.testing.assert_close(combine(maps, weights="linear"), a ** (1 / 3) * b ** (2 / 3))
    torch.testing.assert_close(combine(maps, how="sum", weights=[3.0, 1.0]), (3 * a + b) / 4)
    spread = [part.flatten(1).std(1, correction=0)[:, None, None] for part in (a, b)]
    shares = spread[0] / sum(spread)
    torch.testing.assert_close(combine(maps, weights="spread"), a**shares * b ** (1 - shares))


def test_layers_of_other_sizes_are_grown_first() -> None:
    coarse = Geometry("grid", grid=(1, 1), stride=(2, 3), input_size=(2, 3))
    fine = Geometry("grid", grid=(2, 3), stride=(1, 1), input_size=(2, 3))
    maps = Maps({("a", "m"): FIRST, ("b", "m"): SECOND[:, :1, :1]}, None, {"a": fine, "b": coarse})
    torch.testing.assert_close(combine(maps, how="sum"), _unit(FIRST) / 2)  # one cell is a constant map, and 0


def test_what_does_not_fit_is_refused() -> None:
    maps = _maps(FIRST, SECOND)
    for weights, message in (
        ([1.0], r"weights are \[1.0\] for 2 sites"),
        ([1.0, -1.0], "each site has one of at least 0"),
        ([0.0, 0.0], "not all 0"),
        ("depth", "weights is 'depth', but they are 'uniform', 'linear', 'spread'"),
    ):
        with pytest.raises(ValueError, match=message):
            _weights(torch.rand(2, 1, 2, 3), weights, lead=2)
    with pytest.raises(ValueError, match="method is 'x', but maps are of m"):
        combine(maps, "x")
    two = Maps({("a", "m"): FIRST, ("a", "n"): FIRST}, None, {})
    with pytest.raises(ValueError, match="method is None, but maps are of m, n: name one"):
        combine(two)
