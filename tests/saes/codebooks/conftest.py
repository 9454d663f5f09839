import pytest
import torch

from interp.stores.memory import MemoryStore


@pytest.fixture(scope="session")
def shifted() -> MemoryStore:
    """Rows that lie off to one side of the initial codewords, as an encoder that has moved gives them."""
    return MemoryStore.from_values(torch.randn(4096, 32, generator=torch.Generator().manual_seed(0)) + 1.5)
