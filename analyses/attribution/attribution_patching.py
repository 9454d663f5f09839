"""Attribution patching (Nanda 2023, https://www.neelnanda.io/mechanistic-interpretability/attribution-patching)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.baselines import Baseline, baseline_values
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True, eq=False)
class AttributionPatching(ModelMethod):
    """What ActivationPatching would show at each position, to first order: one gradient for all positions.

    The gradient at the examples themselves, times what the activations are beyond the baseline, summed over channels.
    In units of the score and of the same sign as there: the score less the patched score. It is exact where the score
    is linear in the activations.

    Beside each map, `gap` is what all effects add up to, those of prefix tokens among them, less the true fall of the
    score when all activations go to the baseline: 0 where the score is linear.

    Args:
        baseline: Inputs of the same shape, one for each example; one vector for all positions; or None for 0, which
            makes it input times gradient.

    Raises:
        ValueError: In use, if the baseline has another shape.
    """

    baseline: Baseline = None

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps and their gaps."""
        base = baseline_values(runner, self.baseline)
        clean, grads = runner.gradients()
        found = (runner.values - base) * grads
        gap = found.flatten(1).sum(dim=1) - (clean - runner.scores(base))
        return runner.vectors(found).sum(dim=-1), {"gap": gap}
