"""SimVQ (Zhu et al. 2024, https://arxiv.org/abs/2411.02038)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.codebooks.base import Codebook


class SimVQ(Codebook):
    """Codewords `C W^T + b`: C is random and never moves, W and b are learned, so that a step moves every codeword.

    A codebook that is itself the parameter moves only the codewords in use, and those far from all activations are
    never used again. Two defects of the authors' code are not repeated: its default puts `beta` where `alpha` belongs,
    and its lookup of an index gives a row of C without the projection.

    Args:
        d_in: Width of the activations.
        d_sae: Number of codewords.
        own: As in `Codebook`.
    """

    basis: Float[Tensor, "d_sae d_in"]

    def __init__(self, *, d_in: int, d_sae: int, **own: Any) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, **own)
        generator = torch.Generator().manual_seed(self.arguments["seed"])
        self.register_buffer("basis", torch.randn(d_sae, d_in, generator=generator) * d_in**-0.5)
        # The range of torch's own linear layer, drawn from this codebook's seed.
        W, b = (torch.rand(*shape, generator=generator) * 2 - 1 for shape in ((d_in, d_in), (d_in,)))
        self.W, self.b = nn.Parameter(W * d_in**-0.5), nn.Parameter(b * d_in**-0.5)

    def codewords(self) -> Float[Tensor, "d_sae d_in"]:
        """The projected basis."""
        return torch.addmm(self.b, self.basis, self.W.T)

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Multiply all codewords by a factor; the basis stays."""
        self.W.mul_(scale)
        self.b.mul_(scale)
