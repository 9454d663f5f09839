"""PCA (Pearson 1901, https://doi.org/10.1080/14786440109462720)."""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import ActivationStore
from saes.baselines.base import Projection, signs, unset
from saes.baselines.reading import moments


class PCA(Projection):
    """Principal components: orthonormal directions of falling variance; codes are relative to the mean.

    With `k=None` the squared error is the variance that the components left out have. The sign of a component is free:
    its entry of largest magnitude is made positive.

    Args:
        d_in: Width of the activations.
        d_sae: Number of components.
        k: Codes kept a row, the largest in magnitude; None for all.

    Attributes:
        variances: Variance along each component.
        total_variance: Mean squared distance of a row from the mean row.

    Raises:
        ValueError: If `d_sae` exceeds `d_in`, or `k` is not in `1..d_sae`.
    """

    variances: Float[Tensor, " d_sae"]
    total_variance: Float[Tensor, ""]

    def __init__(self, *, d_in: int, d_sae: int, k: int | None = None) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, k=k)
        if d_sae > d_in:
            raise ValueError(f"d_sae is {d_sae}, but {d_in} channels have {d_in} principal components: ask for fewer.")
        self.register_buffer("variances", unset(d_sae))
        self.register_buffer("total_variance", unset())

    @classmethod
    def fit(
        cls,
        store: ActivationStore,
        *,
        d_sae: int | None = None,
        k: int | None = None,
        rows: int | None = None,
        seed: int = 0,
    ) -> "PCA":
        """Components of the covariance, from one streaming pass in float64.

        Args:
            store: Activations.
            d_sae: Number of components; None for one a channel.
            k: Codes kept a row.
            rows: How many shuffled rows to look at; None for all.
            seed: Names the shuffle, where `rows` is given.

        Raises:
            ValueError: If a number is out of its range.
        """
        found = cls(d_in=store.d_in, d_sae=store.d_in if d_sae is None else d_sae, k=k)
        n, mean, covariance = moments(store, rows, seed=seed)
        variances, vectors = torch.linalg.eigh(covariance)
        components = vectors.T.flip(0)[: found.d_sae]
        components = components / signs(components)
        found.W_dec, found.b_dec = components.float(), mean.float()
        found.W_enc = found.W_dec.T
        found.variances = variances.flip(0)[: found.d_sae].clamp(min=0).float()
        found.total_variance = covariance.trace().float()
        return found._from(store, rows=n, seed=seed)
