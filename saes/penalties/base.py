"""What a penalty sees of a training step, and what it gives back."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from interp.types import Activations, Latents

if TYPE_CHECKING:
    from saes.base import SAE


@dataclass(frozen=True)
class Step:
    """One batch on its way through one SAE, in normalised units.

    Args:
        sae: The SAE in training.
        activations: Its input, with addresses, and gradients and targets where the store has them.
        latents: Its codes, with autograd.
        recon: Its output, with autograd.
        dead: Features that have not fired in the last `dead_tokens` tokens.
        density: Running firing density of each feature.
        progress: Part of the run that is done, in [0, 1].
        scale: What the model's units were multiplied by; a signal that runs the model divides `recon` by it.
    """

    sae: "SAE"
    activations: Activations
    latents: Latents
    recon: Float[Tensor, "n d_out"]
    dead: Bool[Tensor, " d_sae"]
    density: Float[Tensor, " d_sae"]
    progress: float
    scale: float

    @property
    def x(self) -> Float[Tensor, "n d_in"]:
        """The SAE's input."""
        return self.activations.values

    @property
    def target(self) -> Float[Tensor, "n d_out"]:
        """What the SAE should give back: its input, but for transcoders."""
        return self.x if self.activations.target is None else self.activations.target

    @property
    def residual(self) -> Float[Tensor, "n d_out"]:
        """What the reconstruction misses, with autograd."""
        return self.target - self.recon

    def pre_acts(self, features: Tensor) -> Float[Tensor, "n f"]:
        """Dense pre-activations of a few features, with autograd."""
        return self.sae.pre_acts(self.x, features)


@runtime_checkable
class Penalty(Protocol):
    """A term added to the loss: a pure function of a step. A dataclass of plain values, so that runs can record it."""

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The term, already times its coefficient, averaged over rows."""
        ...


def reconstruction(step: Step) -> Float[Tensor, ""]:
    """Squared error, summed over the width and averaged over rows: the default training signal."""
    residual = step.residual
    return residual.square().sum() / len(residual)
