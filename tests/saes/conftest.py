from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.types import Activations, Latents
from saes.base import SAE
from saes.penalties.base import Step


def _rows(n: int = 200, d: int = 6, *, seed: int = 0, features: int = 24) -> Tensor:
    """Sparse sums of unit features, with a mean and in units of about 3."""
    truth = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(features, d, generator=truth))
    draw = torch.Generator().manual_seed(100 + seed)
    codes = (torch.rand(n, features, generator=draw) < 0.1) * torch.rand(n, features, generator=draw).add(0.5)
    return 3 * (codes @ directions + 0.05 * torch.randn(n, d, generator=draw)) + torch.linspace(-1, 1, d)


@pytest.fixture(scope="session")
def rows() -> Callable[..., Tensor]:
    return _rows


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore.from_values(_rows(600), site="blocks.1@in", provenance={"model": "tiny", "shape": (1, 2)})


def _step_of(sae: SAE, x: Tensor, latents: Latents | None = None, recon: Tensor | None = None, **about) -> Step:
    """A step of `x` through `sae`; half of the features dead unless said otherwise."""
    if latents is None:
        encoded = sae.encoded(x)
        latents, about["extras"] = encoded.latents, encoded.extras
    recon = sae.decode(latents) if recon is None else recon
    n, zeros = len(x), torch.zeros(sae.d_sae)
    dead = about.pop("dead", torch.arange(sae.d_sae) % 2 == 0)
    activations = Activations(x, torch.arange(n), torch.zeros(n, dtype=torch.long))
    return Step(sae, activations, latents, recon, dead, zeros, about.pop("progress", 1.0), 1.0, **about)


@pytest.fixture(scope="session")
def step_of() -> Callable[..., Step]:
    return _step_of


def _randomised(sae: SAE, seed: int = 3) -> SAE:
    """Every parameter moved from where it started, an encoder that is no transpose, thresholds set."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
        latents = sae.train().codes(torch.randn(128, sae.d_in, generator=draw).to(sae.b_dec.dtype))
        for name, value in sae.moved_thresholds(latents).items():
            getattr(sae, name).copy_(value)
    return sae


@pytest.fixture(scope="session")
def randomised() -> Callable[..., SAE]:
    return _randomised
