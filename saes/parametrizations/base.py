"""What a parametrization of the decoder is."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Parametrization(nn.Module, ABC):
    """Makes `W_dec` out of parameters of its own. Its rows keep the norms it gives them: none are put back to 1."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "d_sae d_out"]:
        """The decoder, with autograd."""

    def start_at(self, rows: Float[Tensor, "n d_out"]) -> None:
        """Use rows of data, less the decoder's bias, where the parametrization is made of data."""
        del rows


def generator(seed: int) -> torch.Generator:
    """What a parametrization draws from."""
    return torch.Generator().manual_seed(seed)
