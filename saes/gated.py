"""Gated (Rajamanoharan et al. 2024, https://arxiv.org/abs/2404.16014)."""

from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.types import Latents
from saes.axes import Axes
from saes.base import SAE
from saes.engine.dense import DenseLatents
from saes.penalties.gate_aux import GateAux
from saes.penalties.gate_l1 import GateL1


class Gated(SAE):
    """Decide by one pre-activation which latents fire, and by another how much.

    `W_enc` and `b_enc` are the gate's: a latent fires where `pi = (x - b_dec) @ W_enc + b_enc` is positive. Its size
    is the positive part of `exp(r_mag) * (x - b_dec) @ W_enc + b_mag`: the same direction, in its own unit. The L1
    penalty sees the gate alone, so that it does not shrink the codes; what the gate's step hides from the
    reconstruction comes from a second one, made of `relu(pi)`.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`.
    """

    latent_units = ("b_enc", "b_mag")

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0, **axes: Unpack[Axes]) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, **axes)
        self.r_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))

    def bound(self) -> float:
        """Where the gate is open."""
        return 0.0

    def activate(
        self, pre_acts: Float[Tensor, "..."], support: Latents | DenseLatents
    ) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
        """Sizes where the gate is open; and the positive part of the gate, for its penalties."""
        # b_enc is spread on its own: what it adds to the gradient then takes off, to the bit, what came with pre_acts.
        bare = pre_acts - support.spread(self.b_enc)
        sizes = bare * support.spread(self.r_mag.exp()) + support.spread(self.b_mag)
        return torch.relu(sizes) * (pre_acts > 0), {"gate": torch.relu(pre_acts)}

    def default_penalties(self) -> tuple[Any, ...]:
        """The two terms that train the gate."""
        return (GateL1(), GateAux())
