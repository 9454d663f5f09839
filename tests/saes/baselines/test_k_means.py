import pytest
import torch

from interp.stores.memory import MemoryStore
from saes.baselines.k_means import KMeans


@pytest.fixture(scope="module")
def blobs() -> tuple[torch.Tensor, torch.Tensor, MemoryStore]:
    draw = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(6, 5, generator=draw) + 100
    of = torch.arange(900) % 6
    return centres, of, MemoryStore.from_values(centres[of] + torch.randn(900, 5, generator=draw))


def test_centres_are_found_and_are_what_a_row_decodes_to(blobs) -> None:
    _, of, store = blobs
    x = store.span(0, 900).values
    means = torch.stack([x[of == i].mean(0) for i in range(6)])
    k_means = KMeans.fit(store, d_sae=6, steps=50)
    assert torch.allclose(k_means(x), means[of], atol=0.3)
    latents = k_means.encode(x)
    assert torch.equal(latents.values, torch.ones(900))
    assert torch.allclose(k_means(x), (k_means.W_dec + k_means.b_dec)[latents.indices])
    assert torch.allclose(k_means.b_dec, x.mean(0), atol=1e-3)


def test_the_nearest_centre_is_chosen(store, rows) -> None:
    k_means = KMeans.fit(store, d_sae=20, steps=5)
    x = rows(300, seed=4)
    distances = torch.cdist(x.double(), (k_means.W_dec + k_means.b_dec).double())
    assert torch.equal(k_means.encode(x).indices, distances.argmin(1))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"d_sae": 700}, "the store's length is 600, but 700 centres take at least 700: give more, or a smaller d_sae"),
        ({"d_sae": 5, "batch_size": 4}, "batch_size is 4, but 5 centres take at least 5"),
        ({"d_sae": 5, "steps": 0}, "steps is 0, but 5 centres take at least 1"),
    ],
)
def test_too_little_is_refused(store, own: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KMeans.fit(store, **own)
