"""k-means, by mini-batches (Sculley 2010, https://doi.org/10.1145/1772690.1772862)."""

from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import ActivationStore, Latents
from saes.baselines.base import Fitted, unset
from saes.baselines.reading import mean_of


class KMeans(Fitted):
    """Each row has one code, 1 for its nearest centre: the sparsest dictionary there is.

    A direction leads from the mean to a centre, so that `decode(encode(x))` is the centre and directions of different
    centres do not share the mean.

    Args:
        d_in: Width of the activations.
        d_sae: Number of centres.
    """

    signed = False

    def __init__(self, *, d_in: int, d_sae: int) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae)
        self.register_buffer("W_dec", unset(d_sae, d_in))

    def codes(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """1 for the nearest centre; of equally near ones, the first."""
        nearest = (0.5 * self.W_dec.square().sum(1) - (x - self.b_dec) @ self.W_dec.T).argmin(dim=1)
        return Latents(x.new_ones(len(x)), nearest, None, self.d_sae, k=1)

    @classmethod
    def fit(
        cls, store: ActivationStore, *, d_sae: int, steps: int = 200, batch_size: int | None = None, seed: int = 0
    ) -> "KMeans":
        """Run scikit-learn's MiniBatchKMeans on shuffled batches, starting with k-means++ on the first.

        Args:
            store: Activations.
            d_sae: Number of centres.
            steps: Batches; the shuffle goes on from epoch to epoch.
            batch_size: Rows a batch; None for 1024, or 4 a centre if that is more.
            seed: Names the shuffle and the start.

        Raises:
            ValueError: If a number is out of its range, or there are fewer rows than centres.
        """
        from sklearn.cluster import MiniBatchKMeans

        found = cls(d_in=store.d_in, d_sae=d_sae)
        size = max(1024, 4 * d_sae) if batch_size is None else batch_size
        n, mean = mean_of(store, None, seed=seed)
        for name, number, least in (("steps", steps, 1), ("batch_size", size, d_sae), ("the store's length", n, d_sae)):
            if number < least:
                raise ValueError(
                    f"{name} is {number}, but {d_sae} centres take at least {least}: give more, or a smaller d_sae."
                )
        model = MiniBatchKMeans(d_sae, random_state=seed % 2**32)
        for batch in islice(store.batches(size, seed=seed), steps):
            model.partial_fit(batch.values.double().numpy())
        found.b_dec = mean.float()
        found.W_dec = (torch.from_numpy(model.cluster_centers_) - mean).float()
        return found._from(store, rows=n, seed=seed, steps=steps, batch_size=size)
