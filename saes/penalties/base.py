"""What a penalty sees of a training step, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp.types import Activations, Latents
from saes.engine.dense import DenseLatents

if TYPE_CHECKING:
    from saes.base import SAE


@dataclass(frozen=True)
class Watched:
    """Some features in all rows.

    Args:
        features: Which.
        pre_acts: Their pre-activations, with autograd.
        W_dec: Their decoder rows, with autograd.
    """

    features: Int[Tensor, " f"]
    pre_acts: Float[Tensor, "n f"]
    W_dec: Float[Tensor, "f d_out"]


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
        prefix_recons: Outputs of the prefixes of the latents, with autograd, for an SAE that has prefixes.
        extras: What the method's activation leaves for penalties, by name.
        watched: The dead features in all rows, where the engine has made them along with the codes.
        on_sphere: Whether decoder rows are kept at norm 1. What a norm's gradient would do is projected out there, so
            that a penalty need not make it.
    """

    sae: "SAE"
    activations: Activations
    latents: Latents | DenseLatents
    recon: Float[Tensor, "n d_out"]
    dead: Bool[Tensor, " d_sae"]
    density: Float[Tensor, " d_sae"]
    progress: float
    scale: float
    prefix_recons: Float[Tensor, "q n d_out"] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    watched: Watched | None = None
    on_sphere: bool = False

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

    def dead_features(self) -> Watched:
        """The dead features in all rows, for a penalty that says `reads_dead = True`."""
        if self.watched is not None:
            return self.watched
        features = self.dead.nonzero().squeeze(1)
        return Watched(features, self.sae.pre_acts(self.x, features), self.sae.W_dec[features])


@runtime_checkable
class Penalty(Protocol):
    """A term added to the loss: a pure function of a step. A dataclass of plain values, so that runs can record it.

    One that not every method can have names in a class variable `needs` what the method's activation must leave it.
    """

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The term, already times its coefficient, averaged over rows."""
        ...


def needed(step: Step, penalty: Penalty, *, of: str) -> Float[Tensor, "..."]:
    """What a penalty `needs` of `Step.extras`.

    Args:
        step: The batch.
        penalty: The penalty, with its class variable `needs`.
        of: A method that leaves it.

    Raises:
        ValueError: If the method of this step leaves nothing of that name.
    """
    name, own = penalty.needs, type(penalty).__name__  # type: ignore[attr-defined]
    if name not in step.extras:
        raise ValueError(
            f"penalties have {own}, which needs {name!r} of the activation, but {type(step.sae).__name__} leaves none "
            f"in training: leave {own} out, or train a {of}."
        )
    return step.extras[name]


def rise(step: Step, warmup: float) -> float:
    """What a coefficient is multiplied by that rises linearly from 0 over the first part of a run."""
    return min(1.0, step.progress / warmup) if warmup else 1.0


def weighted(step: Step, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Sizes of what stands where the latents do, times the norms of their decoder rows."""
    sizes = values.abs() if step.sae.signed else values
    return sizes if step.on_sphere else sizes * step.latents.spread(step.sae.W_dec.norm(dim=1))


class _SquaredError(torch.autograd.Function):
    """Sum of squares of a difference, in one pass each way."""

    @staticmethod
    def forward(ctx: Any, recon: Tensor, target: Tensor) -> Tensor:
        error = recon - target
        ctx.save_for_backward(error)
        ctx.target = target.shape
        flat = error.view(-1)
        return flat.dot(flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        (error,) = ctx.saved_tensors
        found = error.mul_(2 * grad)  # In place: autograd refuses to come here twice.
        return found, -found.sum_to_size(ctx.target) if ctx.needs_input_grad[1] else None


def squared_error(recon: Float[Tensor, "*q n d_out"], target: Float[Tensor, "n d_out"]) -> Float[Tensor, ""]:
    """Squared error, summed over the width and averaged over rows (and prefixes), differentiable in both, once."""
    return _SquaredError.apply(recon, target) / recon[..., 0].numel()


def reconstruction(step: Step) -> Float[Tensor, ""]:
    """Squared error, summed over the width and averaged over rows (and prefixes): the default training signal."""
    return squared_error(step.recon if step.prefix_recons is None else step.prefix_recons, step.target)
