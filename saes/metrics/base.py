"""What a metric is: statistics that add up over rows or examples, and the value of their totals.

Because statistics add up, one bootstrap over examples serves every metric.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from interp.types import Latents
from saes.metrics.splicing import Splice


@dataclass(frozen=True)
class Rows:
    """One batch of rows and what a dictionary made of them.

    Args:
        x: What should be given back: the rows, or their targets for transcoders.
        recon: What was given back.
        latents: The codes.
        mean: Mean of `x` over all rows of the evaluation.
        origin: Reconstruction of a row without codes: the decoder's bias.
    """

    x: Float[Tensor, "n d_out"]
    recon: Float[Tensor, "n d_out"]
    latents: Latents
    mean: Float[Tensor, " d_out"]
    origin: Float[Tensor, " d_out"]


class Metric(ABC):
    """A named number, defined once. The constructor takes no required argument, so that evaluation can find it."""

    name: ClassVar[str]


class Additive(Metric):
    """A metric whose statistics add up."""

    @abstractmethod
    def value(self, totals: Float[Tensor, "*resamples q"]) -> Float[Tensor, "*resamples"]:
        """The metric of summed statistics."""


class RowMetric(Additive):
    """A metric of rows and their reconstructions."""

    @abstractmethod
    def statistics(self, rows: Rows) -> Float[Tensor, "n q"]:
        """What is summed over rows, in float64."""


class ModelMetric(Additive):
    """A metric of what a model does with reconstructions in the place of its activations."""

    @abstractmethod
    def applies(self, model: object) -> bool:
        """Whether the metric is defined for this kind of model."""

    @abstractmethod
    def statistics(self, splice: Splice) -> Float[Tensor, "b q"]:
        """What is summed over examples, in float64."""


class FeatureMetric(Metric):
    """A metric of how often each feature fired; it has no interval."""

    @abstractmethod
    def value(self, counts: Int[Tensor, " d_sae"]) -> float:
        """The metric, given the number of rows in which each feature fired."""


def metrics() -> list[Metric]:
    """One of each metric that a file of this folder defines, in order of name."""
    found = []
    for info in pkgutil.iter_modules(importlib.import_module("saes.metrics").__path__):
        module = importlib.import_module(f"saes.metrics.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Metric) and hasattr(value, "name"):
                found += [value()] if value.__module__ == module.__name__ else []
    return sorted(found, key=lambda metric: metric.name)
