"""The codebook of VQ-VAE (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.codebooks.base import Codebook


class VectorQuantizer(Codebook):
    """Codewords that are parameters: a step moves those that some row took, and no other.

    Args:
        d_in: Width of the activations.
        d_sae: Number of codewords.
        own: As in `Codebook`.
    """

    def __init__(self, *, d_in: int, d_sae: int, **own: Any) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, **own)
        draws = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(self.arguments["seed"]))
        self.words = nn.Parameter(draws * d_in**-0.5)

    def codewords(self) -> Float[Tensor, "d_sae d_in"]:
        """The parameters themselves."""
        return self.words

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Multiply all codewords by a factor."""
        self.words.mul_(scale)
