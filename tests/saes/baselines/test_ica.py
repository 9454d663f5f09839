import pytest
import torch

from interp.stores.memory import MemoryStore
from saes.baselines.ica import ICA


@pytest.fixture(scope="module")
def planted() -> tuple[torch.Tensor, torch.Tensor, MemoryStore]:
    """Three independent sources with long tails, mixed by unit directions that are not orthogonal."""
    draw = torch.Generator().manual_seed(0)
    sources = torch.empty(4000, 3, dtype=torch.float64).exponential_(generator=draw) * torch.tensor([1.0, 3.0, 2.0])
    sources *= torch.rand(4000, 3, generator=draw) < 0.2
    directions = torch.nn.functional.normalize(torch.randn(3, 5, generator=draw, dtype=torch.float64), dim=1)
    return sources, directions, MemoryStore.from_values(sources @ directions - 4)


def test_sources_are_found_with_their_sign_scale_and_order(planted) -> None:
    sources, directions, store = planted
    ica = ICA.fit(store, d_sae=3, rows=None)
    order = torch.tensor([1, 2, 0])  # Of falling spread.
    assert (ica.W_dec.double() * directions[order]).sum(1).min() > 0.998
    codes = ica.encode(store.span(0, 4000).values).dense().double()
    expected = sources[:, order] - sources[:, order].mean(0)
    assert (codes - expected).square().mean(0).div(expected.square().mean(0)).max() < 0.01


def test_all_components_reconstruct(planted) -> None:
    _, _, store = planted
    x = store.span(0, 100).values
    ica = ICA.fit(store, d_sae=3, rows=1000)
    assert torch.allclose(ica(x), x.float(), atol=1e-4)
    assert ica.provenance["fit"]["rows"] == 1000


def test_more_components_than_channels_or_rows_are_refused(planted) -> None:
    _, _, store = planted
    with pytest.raises(ValueError, match="d_sae is 6, but ICA finds no more components than the 5 channels"):
        ICA.fit(store, d_sae=6)
    with pytest.raises(ValueError, match="there are 3 rows, but ICA with 3 components takes at least 4"):
        ICA.fit(store, d_sae=3, rows=3)
