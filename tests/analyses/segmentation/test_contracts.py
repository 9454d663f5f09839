"""What every segmentation keeps, found by discovery."""

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from analyses.segmentation.base import Segmenter
from analyses.segmenting import segmenters

KINDS = list(segmenters().values())
GRIDS = [(17,), (6, 7), (3, 4, 2)]


def _layer(kind: type[Segmenter], grid: tuple[int, ...], b: int = 5, d: int = 6) -> torch.Tensor:
    acts = torch.randn(b, *grid, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return acts.abs() if kind.reads == "patterns" else acts


def test_all_are_found() -> None:
    assert {"TokenCut", "LOST", "TokenClusters", "AttentionMaps"} <= set(segmenters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_batch_equals_one_by_one(kind: type[Segmenter], grid: tuple[int, ...]) -> None:
    acts = _layer(kind, grid)
    whole, parts = kind()(acts), [kind()(acts[i : i + 1]) for i in range(len(acts))]
    assert whole.masks.shape == (5, whole.masks.shape[1], *grid) and whole.found.any()
    assert torch.equal(whole.masks, torch.cat([part.masks for part in parts]))
    torch.testing.assert_close(whole.saliency, torch.cat([part.saliency for part in parts]), rtol=1e-12, atol=1e-12)
    for name, numbers in whole.details.items():
        assert numbers.shape == whole.masks.shape[:2]
        alone = torch.cat([part.details[name] for part in parts])
        torch.testing.assert_close(numbers, alone, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_comes_out_has_the_dtype_that_went_in(kind: type[Segmenter], dtype: torch.dtype) -> None:
    acts = _layer(kind, (6, 7)).to(dtype)
    found, exact = kind()(acts), kind()(acts.double())
    assert {found.saliency.dtype, *(numbers.dtype for numbers in found.details.values())} == {dtype}
    assert torch.equal(found.masks, exact.masks)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_given_is_changed(kind: type[Segmenter]) -> None:
    acts = _layer(kind, (6, 7))
    before = acts.clone()
    kind()(acts)
    assert torch.equal(acts, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_where_all_is_alike_there_is_no_object(kind: type[Segmenter], value: float) -> None:
    found = kind()(torch.full((2, 4, 5, 3), value))
    assert not found.found.any() and not found.masks.any() and not found.boxes.any()
    assert found.saliency.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [(1,), (1, 1)])
def test_one_position_is_no_object(kind: type[Segmenter], grid: tuple[int, ...]) -> None:
    assert not kind()(_layer(kind, grid)).found.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused(kind: type[Segmenter], value: float) -> None:
    acts = _layer(kind, (6, 7))
    acts[2, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"acts are not finite in examples \[2\], but {kind.__name__}"):
        kind()(acts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_constructor_is_the_configuration(kind: type[Segmenter]) -> None:
    first = fields(kind)[0].name  # type: ignore[arg-type]
    assert kind() == kind()
    with pytest.raises(FrozenInstanceError):
        setattr(kind(), first, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_paper_is_named(kind: type[Segmenter]) -> None:
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    assert "https://" in first and any(year in first for year in map(str, range(2000, 2030)))
