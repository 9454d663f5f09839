"""Input times gradient (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True)
class InputXGradient(ModelMethod):
    """What each position adds to the score, to first order: activation times gradient, summed over channels.

    In units of the score; the sum of a map is the score itself where the model is linear without a bias.
    """

    def attributions(self, runner: Runner) -> Tensor:
        """Activation times gradient, as the model makes the activations."""
        return runner.values * runner.gradients()[1]

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        return runner.vectors(self.attributions(runner)).sum(dim=-1), {}
