"""Score-CAM (Wang et al. 2020, https://arxiv.org/abs/1910.01279)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.maps import grown, to_unit
from analyses.running import Runner


@dataclass(frozen=True)
class ScoreCAM(ModelMethod):
    """The sum of the channels, each weighted by the score of the input that it lets through.

    A channel is grown to the input, scaled to 0..1 and multiplied with it; the weights are the softmax over channels of
    the scores. In units of the activations. Runs the model once a channel; needs an input with a grid (`input`).
    """

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps.

        Raises:
            ValueError: If the site's geometry does not say where its positions lie in the input, or the input has no
                grid.
        """
        acts, whole = runner.vectors(runner.values), runner.at_input()
        scores = torch.stack(list(whole.scores_of(self._shown(runner, whole, acts))), dim=1)
        weights = scores.softmax(dim=1).to(acts)
        return torch.einsum("bd,b...d->b...", weights, acts), {}

    def _shown(self, runner: Runner, whole: Runner, acts: Float[Tensor, "b *grid d"]) -> Iterator[Tensor]:
        for channel in acts.unbind(dim=-1):
            mask = to_unit(grown(channel, runner.geometry, None, str(runner.site), lead=1), lead=1)
            shown = whole.values.clone()
            whole.vectors(shown).mul_(mask[..., None])
            yield shown
