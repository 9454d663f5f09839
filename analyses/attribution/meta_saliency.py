"""Meta-saliency (Rebuffi et al. 2020, https://arxiv.org/abs/2004.02866)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details, LocalMethod
from analyses.cam.norm_grad import NormGrad
from analyses.running import Runner
from analyses.weights import replaced


@dataclass(frozen=True)
class MetaSaliency(ModelMethod):
    """Any map, after one step of training on the example itself: what the network would learn from it is shown.

    For each example alone, the weights take one step of gradient descent on its loss, the map is made, and the weights
    are put back to the bit. The loss is the cross-entropy of a `ClassLogit`'s class, and minus the score elsewhere. In
    the inner method's units.

    Args:
        method: What makes the map.
        eta: Size of the step; 0 is the inner method.
        ascend: Step up the loss instead.
    """

    method: LocalMethod | ModelMethod = field(default_factory=NormGrad)
    eta: float = 1e-4
    ascend: bool = False

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps, and what the inner method says about them."""
        found, about = [], []
        for number in range(len(runner.examples)):
            alone = runner.some(torch.tensor([number]))
            with self._stepped(alone):
                maps, details = self._inside(alone)
            found.append(maps)
            about.append(details)
        return torch.cat(found), {name: torch.cat([part[name] for part in about]) for name in about[0]}

    def _inside(self, alone: Runner) -> tuple[Tensor, Details]:
        if isinstance(self.method, ModelMethod):
            return self.method.measured(alone)
        return self.method.measured(alone.vectors(alone.values), alone.vectors(alone.gradients()[1]))

    @contextlib.contextmanager
    def _stepped(self, alone: Runner) -> Iterator[None]:
        slopes = alone.scorer.weight_gradients(alone.examples)
        size = self.eta * (1 if self.ascend else -1)
        moved = {weight: weight.data + size * slope for weight, slope in slopes.items()}
        with replaced(moved):
            yield
