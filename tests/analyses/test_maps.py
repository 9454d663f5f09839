import pytest
import torch
from torch.nn import functional

from analyses.maps import Maps
from interp.types import Geometry


def _maps(values: torch.Tensor, **geometry: object) -> Maps:
    return Maps({("a", "m"): values}, None, {"a": Geometry("grid", grid=tuple(values.shape[1:]), **geometry)})  # type: ignore[arg-type]


def test_growing_equals_torchs_interpolation_where_patches_fill_the_input() -> None:
    values = torch.randn(2, 4, 5, dtype=torch.float64)
    grown = _maps(values, stride=(8, 8), input_size=(32, 40)).upsampled()["a"]
    expected = functional.interpolate(values[:, None], size=(32, 40), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(grown, expected)


def test_growing_follows_where_patches_begin() -> None:
    """A ramp over the patches is a ramp over the input, through the centre of each patch."""
    ramp = torch.arange(4, dtype=torch.float64)[None]
    grown = _maps(ramp, stride=(6,), patch=(3,), start=(2,), input_size=(24,)).upsampled()["a"][0]
    centres = 2 + 6 * torch.arange(4) + 1.5
    for i, pixel in enumerate(torch.arange(24, dtype=torch.float64) + 0.5):
        assert abs(grown[i] - ((pixel - centres[0]) / 6).clamp(0, 3)) < 1e-12


def test_growing_to_another_size_and_of_a_volume() -> None:
    values = torch.rand(2, 2, 3, 4, dtype=torch.float64)
    maps = _maps(values, stride=(2, 2, 2), input_size=(4, 6, 8))
    expected = functional.interpolate(values[:, None], size=(4, 6, 8), mode="trilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps.upsampled()["a"], expected)
    half = functional.interpolate(values[:, None], size=(2, 3, 4), mode="trilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps.upsampled((2, 3, 4))["a"], half)


def test_without_a_stride_there_is_no_input_to_grow_to() -> None:
    with pytest.raises(ValueError, match="the geometry of a does not say which input.*stride="):
        _maps(torch.rand(1, 2, 2)).upsampled()


def test_normalised_maps_run_from_0_to_1_and_constant_ones_are_0() -> None:
    values = torch.stack([torch.tensor([[-2.0, 0.0], [2.0, 6.0]]), torch.full((2, 2), 3.0)])
    shown = _maps(values).normalised()["a"]
    torch.testing.assert_close(shown[0], torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
    assert shown[1].abs().max() == 0


def test_one_map_is_read_at_a_time() -> None:
    one, other = torch.zeros(1, 2), torch.ones(1, 2)
    maps = Maps({("a", "m"): one, ("b", "m"): other, ("b", "n"): one}, None, {})
    assert maps["b", "m"] is other and maps["a"] is one and maps["n"] is one
    with pytest.raises(ValueError, match="'m' names 2 of these maps.*sites a, b and methods m, n"):
        maps["m"]
    with pytest.raises(ValueError, match="names 0 of these maps"):
        maps["a", "n"]
