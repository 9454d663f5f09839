"""SmoothGrad (Smilkov et al. 2017, https://arxiv.org/abs/1706.03825)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod, Reduce, over_channels
from analyses.cam.base import Details
from analyses.running import Runner
from interp.stores.shuffling import counter_key

_NOISE = 2  # purpose of the counter-based generator


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


def noise_like(values: Tensor, seed: int, sample: int) -> Tensor:
    """Gaussian noise of the shape of one example: a function of the seed and the sample, the same in any batch."""

    # Drawn one number after the other, so that the first positions of a longer example have the same noise.
    draw = np.random.Generator(np.random.Philox(key=int(counter_key(seed, _NOISE, sample, 0))))
    return torch.from_numpy(draw.standard_normal(tuple(values.shape[1:]))).to(values)
