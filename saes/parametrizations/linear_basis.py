"""A frozen basis and one linear map (SimVQ: Zhu et al. 2024, https://arxiv.org/abs/2411.02038)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.parametrizations.base import Parametrization


class LinearBasis(Parametrization):
    """`W_dec = basis @ map`: the basis is random and stays, the map is learned, so a step on one row moves all rows.

    What keeps a codebook from collapsing there is asked of a decoder here: rows that no input uses are moved by those
    that are used. It has `d_out ** 2` parameters for `d_sae * d_out` numbers.

    Args:
        directions: Rows that a free decoder would start from; they are the basis, and the map starts as identity.
        seed: Not used: nothing more is drawn.
    """

    basis: Tensor

    def __init__(self, *, directions: Float[Tensor, "d_sae d_out"], seed: int = 0) -> None:
        super().__init__()
        del seed
        self.register_buffer("basis", directions.clone())
        self.map = nn.Parameter(torch.eye(directions.shape[1]))

    def forward(self) -> Float[Tensor, "d_sae d_out"]:
        """The mapped basis."""
        return self.basis @ self.map
