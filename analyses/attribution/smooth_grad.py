"""SmoothGrad (Smilkov et al. 2017, https://arxiv.org/abs/1706.03825)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod, Reduce, noise_like, over_channels
from analyses.cam.base import Details
from analyses.running import Runner


@dataclass(frozen=True)
class SmoothGrad(ModelMethod):
    """The mean of gradients at noisy copies of the activations.

    The noise of a sample is the same for all examples, a function of the seed alone.

    Args:
        samples: Noisy copies.
        noise: Standard deviation of the noise, as a part of the range of an example's activations.
        seed: Names the noise.
        reduce: What is made of the channels: their `norm`, the `max` of their sizes, or their signed `sum`.

    Raises:
        ValueError: If there is less than one sample, or negative noise.
    """

    samples: int = 50
    noise: float = 0.15
    seed: int = 0
    reduce: Reduce = "norm"

    def __post_init__(self) -> None:
        if self.samples < 1 or self.noise < 0:
            raise ValueError(
                f"SmoothGrad has {self.samples} samples and noise {self.noise}, but it needs a sample and noise of at "
                "least 0: choose such values."
            )

    def attributions(self, runner: Runner) -> Tensor:
        """The mean gradient, as the model makes the activations."""
        values = runner.values
        flat = values.flatten(1)
        size = self.noise * (flat.amax(dim=1) - flat.amin(dim=1)).view(-1, *[1] * (values.ndim - 1))
        noisy = (values + size * noise_like(values, self.seed, sample) for sample in range(self.samples))
        total = torch.zeros_like(values)
        for grads in runner.gradients_of(noisy):
            total += grads
        return total / self.samples

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        return over_channels(runner.vectors(self.attributions(runner)), self.reduce), {}
