"""Random directions: a sparse autoencoder before its training, with the best scale there is for it."""

import torch

from interp.stores.shuffling import counter_key
from interp.types import ActivationStore
from saes.baselines.base import Projection
from saes.baselines.reading import batches, mean_of

_DIRECTIONS = 1


class Random(Projection):
    """Unit directions, uniform on the sphere; a code is the inner product with its direction, times one scale.

    Inner products with directions that are not orthogonal reconstruct too much: `fit` sets the mean as bias and the one
    scale of all codes that leaves the least squared error at this `k`, so that FVU never exceeds 1 on the rows it saw.
    Without a fit the bias is 0 and the scale 1.

    Args:
        d_in: Width of the activations.
        d_sae: Number of directions.
        k: Codes kept a row, the largest in magnitude; None for all.
        seed: Names the directions.
    """

    def __init__(self, *, d_in: int, d_sae: int, k: int | None = None, seed: int = 0) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, k=k, seed=seed)
        generator = torch.Generator().manual_seed(int(counter_key(seed, _DIRECTIONS)) >> 1)
        self.W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.W_enc, self.b_dec = self.W_dec.T.contiguous(), torch.zeros(d_in)

    @classmethod
    @torch.no_grad()
    def fit(
        cls, store: ActivationStore, *, d_sae: int, k: int | None = None, rows: int | None = 65536, seed: int = 0
    ) -> "Random":
        """Draw the directions, then find bias and scale.

        Args:
            store: Activations.
            d_sae: Number of directions.
            k: Codes kept a row.
            rows: How many shuffled rows to look at; None for all.
            seed: Names the directions and the shuffle.

        Raises:
            ValueError: If a number is out of its range.
        """
        found = cls(d_in=store.d_in, d_sae=d_sae, k=k, seed=seed)
        n, mean = mean_of(store, rows, seed=seed)
        found.b_dec = mean.float()
        product = square = 0.0
        for x in batches(store, rows, seed=seed):
            recon = found(x).double() - found.b_dec
            product += float(((x - found.b_dec) * recon).sum())
            square += float(recon.square().sum())
        found.W_enc = found.W_dec.T * (product / square if square else 1.0)
        return found._from(store, rows=n, seed=seed)
