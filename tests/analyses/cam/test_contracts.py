"""What every map of one layer keeps, found by discovery."""

import inspect
import warnings

import pytest
import torch

from analyses.cam.base import LocalMethod, checked
from analyses.methods import methods

METHODS = [kind for kind in methods().values() if issubclass(kind, LocalMethod)]
GRIDS = [(7,), (4, 5), (2, 3, 4)]


def _pooled(grads: torch.Tensor) -> torch.Tensor:
    """The gradient of a layer that is averaged next, which every method takes."""
    return grads[(slice(None), *[slice(0, 1)] * (grads.ndim - 2))].expand_as(grads).contiguous()


def _layer(grid: tuple[int, ...], b: int = 5, d: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    acts = torch.randn(b, *grid, d, generator=draw, dtype=torch.float64) + 0.3
    grads = torch.randn(b, *grid, d, generator=draw, dtype=torch.float64)
    return acts, grads


def _given(kind: type[LocalMethod], grads: torch.Tensor) -> torch.Tensor:
    return _pooled(grads) if kind.__name__ == "CAM" else grads


def test_all_are_found() -> None:
    assert {"CAM", "GradCAM", "HiResCAM", "EigenCAM", "NormGrad"} <= {kind.__name__ for kind in METHODS}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_batch_equals_one_by_one(kind: type[LocalMethod], grid: tuple[int, ...]) -> None:
    acts, grads = _layer(grid)
    grads = _given(kind, grads)
    maps = kind()(acts, grads)
    alone = torch.cat([kind()(acts[i : i + 1], grads[i : i + 1]) for i in range(len(acts))])
    assert maps.shape == (5, *grid)
    torch.testing.assert_close(maps, alone, rtol=1e-12, atol=1e-12)
    in_float32 = kind()(acts.float(), grads.float())
    assert in_float32.dtype == torch.float32
    torch.testing.assert_close(in_float32.double(), maps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", METHODS)
def test_nothing_given_is_changed(kind: type[LocalMethod]) -> None:
    acts, grads = _layer((4, 5))
    grads = _given(kind, grads)
    before = acts.clone(), grads.clone()
    kind()(acts, grads)
    assert torch.equal(acts, before[0]) and torch.equal(grads, before[1])


@pytest.mark.parametrize("kind", METHODS)
def test_moving_the_positions_moves_the_map(kind: type[LocalMethod]) -> None:
    """But for windows, no method knows which position stands beside which."""
    acts, grads = _layer((9,))
    grads, order = _given(kind, grads), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    moved = kind()(acts[:, order], grads[:, order])
    torch.testing.assert_close(moved, kind()(acts, grads)[:, order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", METHODS)
def test_zeros_give_zero_maps(kind: type[LocalMethod]) -> None:
    acts, grads = _layer((4, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a map of zeros has no sign to be undetermined
        assert kind()(torch.zeros_like(acts), _given(kind, grads)).abs().max() == 0
        if kind().gradient:
            assert kind()(acts, torch.zeros_like(grads)).abs().max() == 0


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("grid", [(1,), (1, 1)])
def test_one_position_is_enough(kind: type[LocalMethod], grid: tuple[int, ...]) -> None:
    acts, grads = _layer(grid)
    assert kind()(acts, grads).isfinite().all()


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind().gradient])
def test_a_missing_gradient_is_refused(kind: type[LocalMethod]) -> None:
    acts, _ = _layer((4, 5))
    with pytest.raises(ValueError, match=f"grads is None, but {kind.__name__} is made from the gradient"):
        kind()(acts)


def test_a_gradient_of_another_layer_is_refused() -> None:
    acts, grads = _layer((4, 5))
    with pytest.raises(ValueError, match=r"grads has shape \(5, 4, 4, 6\), but acts \(5, 4, 5, 6\)"):
        checked(object(), acts, grads[:, :, :4])


@pytest.mark.parametrize("kind", METHODS)
def test_a_channel_alone_has_a_map_or_a_refusal(kind: type[LocalMethod]) -> None:
    acts, grads = _layer((4, 5), d=1)
    maps = kind()(acts, _given(kind, grads))
    if not kind().one_channel:  # the map is the channel itself, with or without its gradient
        channel = (acts * grads if kind().gradient else acts)[..., 0]
        torch.testing.assert_close(maps.abs(), channel.abs())


@pytest.mark.parametrize("kind", METHODS)
def test_paper_is_named(kind: type[LocalMethod]) -> None:
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    assert "https://" in first and any(year in first for year in map(str, range(2015, 2030)))
