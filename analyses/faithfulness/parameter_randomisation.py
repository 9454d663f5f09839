"""Parameter randomisation (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from analyses.faithfulness.base import Case, Judge
from analyses.faithfulness.ranking import rank_correlation
from analyses.weights import replaced
from interp.stores.shuffling import counter_key

_WEIGHTS = 6  # purpose of the counter-based generator


@dataclass(frozen=True)
class ParameterRandomisation(Judge):
    """The size of the rank correlation of a map with that of the same model when weights are drawn at random.

    A map that stays the same shows the picture, not what was learned; and so does one that turns into its negative, as
    signed maps do with the sign of a random score: hence the size, 0 to 1. A weight's entries are drawn from a normal
    distribution of the mean and deviation that they have, so that activations keep about their size; entries that are
    all alike (of a fresh normalisation) stay, and so do buffers (the statistics of a batch normalisation). Each stage
    draws more of the weights, from the model's last one to its first; the number is the mean over stages and draws,
    which are the same for all examples: an interval over examples does not hold for other draws. Weights come back to
    the bit.

    Args:
        stages: Parts that the weights are drawn in, one more at each stage; 1 for all at once.
        draws: How often.
        seed: Names the weights.

    Raises:
        ValueError: If a number is less than 1; in use, if the model has no weights.
    """

    stages: int = 1
    draws: int = 3
    seed: int = 0

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    sanity: ClassVar[bool] = True
    limit: ClassVar[float | None] = 0.5

    def __post_init__(self) -> None:
        if self.stages < 1 or self.draws < 1:
            raise ValueError(f"stages is {self.stages} and draws {self.draws}, but both are at least 1: give such.")

    def __call__(self, case: Case) -> Float[Tensor, " b"]:
        """The correlations."""
        total, count = torch.zeros_like(case.maps.flatten(1)[:, 0]), 0
        for draw in range(self.draws):
            for weights in self._stages(case.model.module):
                with replaced({weight: self._drawn(weight, draw, i) for i, weight in weights}):
                    total += rank_correlation(case.maps, case.again(case.inputs), case.kept(case.maps)).abs()
                count += 1
        return total / count

    def _stages(self, module: nn.Module) -> Iterator[list[tuple[int, nn.Parameter]]]:
        """Numbered weights from the last one on, more at each stage."""
        weights = [(i, weight) for i, weight in enumerate(module.parameters()) if weight.is_floating_point()][::-1]
        if not weights:
            raise ValueError("the model has no weights, but this judge draws them at random: leave it out.")
        for stage in range(1, self.stages + 1):
            yield weights[: -(-len(weights) * stage // self.stages)]

    def _drawn(self, weight: nn.Parameter, draw: int, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(counter_key(self.seed, _WEIGHTS, draw, number)) >> 1)
        fresh = torch.randn(weight.shape, generator=generator, dtype=torch.float32).to(weight)
        spread = weight.data.std(correction=0) if weight.numel() else weight.data.sum()
        return weight.data.mean() + spread * fresh
