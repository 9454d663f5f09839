"""The kernels run in Triton's interpreter here, on numpy."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from interp.types import Latents


@pytest.fixture
def kernels(needs: Callable[[str], None]) -> SimpleNamespace:
    """The kernels' modules, interpreted."""
    needs("triton")
    import triton.language as tl

    if type(tl.sum).__name__ != "InterpretedFunction":
        pytest.fail("something imported triton before tests/conftest.py set TRITON_INTERPRET")
    from saes.engine.kernels import adam, gradients, products, selection, sums, tiles, twins

    return SimpleNamespace(
        adam=adam, gradients=gradients, products=products, selection=selection, sums=sums, tiles=tiles, twins=twins
    )


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def random() -> Callable[..., Tensor]:
    return _random


def _codes(n: int, d_sae: int, kind: str) -> Latents:
    """Codes of random sign: "some" (short rows, long rows, none), "all" (feature 0 in every row), "none", "full"."""
    share = {"some": 0.3, "all": 0.05, "none": 0.0, "full": 1.0}[kind]
    draw = torch.Generator().manual_seed(n)
    kept = torch.rand(n, d_sae, generator=draw) < share * torch.rand(n, 1, generator=draw).mul(2).round().clamp(max=1)
    if kind == "full":
        kept[:] = True
    if kind == "all":
        kept[:, 0] = True
    return Latents.from_dense(torch.where(kept, _random(n, d_sae, seed=1), torch.zeros(())))


@pytest.fixture
def codes() -> Callable[[int, int, str], Latents]:
    return _codes


def _close(found: Tensor, exact: Tensor, size: Tensor, unit: float = 3e-6) -> None:
    """Each number within `unit` of the exact one, relative to the sum of the absolute values of its summands."""
    assert found.shape == exact.shape
    assert exact.dtype == size.dtype == torch.float64
    assert ((found.double() - exact).abs() <= unit * size).all()


@pytest.fixture
def close() -> Callable[..., None]:
    return _close
