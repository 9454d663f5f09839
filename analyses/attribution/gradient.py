"""The gradient of a score (Simonyan et al. 2013, https://arxiv.org/abs/1312.6034)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod, Reduce, over_channels
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True)
class Gradient(ModelMethod):
    """How much the score moves with each position, for a small step.

    Args:
        reduce: What is made of the channels: the `max` of their sizes, as in the paper, their `norm` or signed `sum`.
    """

    reduce: Reduce = "norm"

    def attributions(self, runner: Runner) -> Tensor:
        """The gradient, as the model makes the activations."""
        return runner.gradients()[1]

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        return over_channels(runner.vectors(self.attributions(runner)), self.reduce), {}
