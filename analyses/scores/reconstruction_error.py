"""The error of painted pixels (SimMIM, Xie et al. 2022, https://arxiv.org/abs/2111.09886)."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from analyses.scores.base import Pass, Score


@dataclass(frozen=True, eq=False)
class ReconstructionError(Score):
    """Mean absolute error of what a model paints, over the values of each example that were masked.

    The model is given the masked inputs; with the same mask each time, the error of an example is one number. The score
    is the loss itself: a map is positive where a position raises it, and negative where it helps to paint.

    Args:
        targets: What should be painted for each example, in the shape of the model's output.
        mask: True where a value of the output counts, for each example; None for everywhere.

    Raises:
        ValueError: If the mask has another shape or leaves an example nothing; in use, if the model paints another
            shape, or there are not as many targets as examples.
    """

    targets: Float[Tensor, "n ..."]
    mask: Bool[Tensor, "m ..."] | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        if self.mask.shape != self.targets.shape or not self.mask.flatten(1).any(dim=1).all():
            raise ValueError(
                f"mask has shape {list(self.mask.shape)} for targets of shape {list(self.targets.shape)}, but both are "
                "alike, and each example has values that count: give such a mask, or None for all."
            )

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The errors."""
        painted = run.logits()
        targets = run.own("targets", self.targets, "one target an example").detach().to(painted)
        if painted.shape != targets.shape:
            raise ValueError(
                f"targets have shape {list(targets.shape[1:])} an example, but {run.model.name} gives "
                f"{list(painted.shape[1:])}: give them as the model paints them."
            )
        errors = (painted - targets).abs().flatten(1)
        if self.mask is None:
            return errors.mean(dim=1)
        counted = run.own("mask", self.mask, "one mask an example").flatten(1).to(errors)
        return (errors * counted).sum(dim=1) / counted.sum(dim=1)

    def loss(self, run: Pass) -> Float[Tensor, " b"]:
        """The score, which is a loss already."""
        return self(run)
