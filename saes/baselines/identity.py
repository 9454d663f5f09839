"""The raw channels of a site: what every dictionary is to be better than."""

import torch

from interp.types import ActivationStore
from saes.baselines.base import Projection


class Identity(Projection):
    """Each channel is a direction, each activation its own code; with `k=None` the reconstruction is exact.

    Args:
        d_in: Width of the activations, and number of directions.
        d_sae: The same number, or None.
        k: Codes kept a row, the largest in magnitude; None for all.

    Raises:
        ValueError: If `d_sae` is another number than `d_in`, or `k` is not in `1..d_in`.
    """

    def __init__(self, *, d_in: int, d_sae: int | None = None, k: int | None = None) -> None:
        super().__init__(d_in=d_in, d_sae=d_in, k=k)
        if d_sae not in (None, d_in):
            raise ValueError(f"d_sae is {d_sae}, but there are d_in = {d_in} channels: leave d_sae out.")
        self.W_enc, self.W_dec, self.b_dec = torch.eye(d_in), torch.eye(d_in), torch.zeros(d_in)

    @classmethod
    def fit(cls, store: ActivationStore, *, k: int | None = None) -> "Identity":
        """The channels of a store's site; no row is read."""
        return cls(d_in=store.d_in, k=k)._from(store)
