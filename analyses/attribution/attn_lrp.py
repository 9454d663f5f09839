"""AttnLRP (Achtibat et al. 2024, https://arxiv.org/abs/2402.05602)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.relevance import relevance_rules
from analyses.running import Runner


@dataclass(frozen=True)
class AttnLRP(ModelMethod):
    """What each position adds to the score, by layer-wise relevance propagation through any network.

    Relevance is activation times a gradient for which operations are differentiated by rules: activations and
    normalisation as multiples of what they are given, products shared alike among their factors, softmax and linear
    layers as they are, with no epsilon. See `analyses.relevance` for what has a rule. Of a network of ReLU, linear
    layers and means it is input times gradient.

    In units of the score, summed over channels. What biases keep, and softmax with them, is in no place: it is reported
    as `gap`, the sum over all positions, prefix tokens too, less the score. Without biases and softmax it is 0.
    """

    def attributions(self, runner: Runner) -> Tensor:
        """Relevance, as the model makes the activations."""
        return self._shared(runner)[0]

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps and their gaps."""
        found, scores = self._shared(runner)
        return runner.vectors(found).sum(dim=-1), {"gap": found.flatten(1).sum(dim=1) - scores}

    def _shared(self, runner: Runner) -> tuple[Tensor, Float[Tensor, " b"]]:
        module = runner.scorer.model.module
        parts = getattr(runner.scorer.model, "modules", module.modules)()
        values = runner.values
        with relevance_rules(parts):
            scores, grads = runner.gradients()
        return values * grads, scores
