"""ICA by FastICA (Hyvärinen and Oja 2000, https://doi.org/10.1016/S0893-6080(00)00026-5)."""

import torch

from interp.types import ActivationStore
from saes.baselines.base import Projection
from saes.baselines.reading import sampled


class ICA(Projection):
    """Independent components: linear codes as independent, and as far from Gaussian, as a linear map can make them.

    Scale, sign and order of the components are free. Directions have unit norm, point to where the codes have their
    long tail (positive skewness), and come in order of falling variance of their codes.

    Args:
        d_in: Width of the activations.
        d_sae: Number of components.
        k: Codes kept a row, the largest in magnitude; None for all.

    Raises:
        ValueError: If `d_sae` exceeds `d_in`, or `k` is not in `1..d_sae`.
    """

    def __init__(self, *, d_in: int, d_sae: int, k: int | None = None) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, k=k)
        if d_sae > d_in:
            raise ValueError(
                f"d_sae is {d_sae}, but ICA finds no more components than the {d_in} channels: ask for fewer."
            )

    @classmethod
    def fit(
        cls,
        store: ActivationStore,
        *,
        d_sae: int | None = None,
        k: int | None = None,
        rows: int | None = 16384,
        iterations: int = 200,
        seed: int = 0,
    ) -> "ICA":
        """Run scikit-learn's FastICA (symmetric, log cosh) on sampled rows; it warns where it does not converge.

        Args:
            store: Activations.
            d_sae: Number of components; None for one a channel.
            k: Codes kept a row.
            rows: How many shuffled rows are held and looked at; None for all.
            iterations: Most iterations.
            seed: Names the shuffle and the start.

        Raises:
            ValueError: If a number is out of its range, or there are fewer rows than components.
        """
        from sklearn.decomposition import FastICA

        found = cls(d_in=store.d_in, d_sae=store.d_in if d_sae is None else d_sae, k=k)
        x = sampled(store, rows, seed=seed, at_least=found.d_sae + 1, reason=f"ICA with {found.d_sae} components")
        model = FastICA(found.d_sae, whiten="unit-variance", max_iter=iterations, random_state=seed % 2**32)
        codes = torch.from_numpy(model.fit_transform(x.numpy()))
        directions, readers = torch.from_numpy(model.mixing_).T, torch.from_numpy(model.components_)
        # Codes have variance 1, so that the length of a direction is the spread of what it adds.
        scale = directions.norm(dim=1) * torch.where(codes.pow(3).sum(0) < 0, -1.0, 1.0)
        order = scale.abs().argsort(descending=True)
        found.W_dec = (directions / scale[:, None])[order].float()
        found.W_enc = (readers * scale[:, None])[order].float().T
        found.b_dec = torch.from_numpy(model.mean_).float()
        return found._from(store, rows=len(x), seed=seed, iterations=model.n_iter_)
