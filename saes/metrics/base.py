"""What a metric is: statistics that add up over rows or examples, and the value of their totals.

Because statistics add up, one bootstrap over examples serves every metric.
"""

import contextlib
import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.types import JSON, Latents
from saes.metrics.bootstrap import Interval
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


class Findings:
    """What a metric finds that is more than one number: a dataclass of numbers, intervals, and groups of them.

    Fields of `field(repr=False)` are what they were made from: not written.
    """

    def to_json(self) -> JSON:
        """Plain values; what is undefined is null."""
        return {part.name: plain(getattr(self, part.name)) for part in fields(self) if part.repr}  # type: ignore[arg-type]

    def __str__(self) -> str:
        """A line a number; of a group of intervals, a line each."""
        shown = {part.name: getattr(self, part.name) for part in fields(self) if part.repr}  # type: ignore[arg-type]
        width, lines = max(map(len, shown)), []
        for name, value in shown.items():
            listed = isinstance(value, Mapping) and not all(isinstance(x, int | float) for x in value.values())
            texts = [f"{key}: {_text(x)}" for key, x in value.items()] if listed else [_text(value)]
            lines += [f"{name if i == 0 else '':{width}}  {text}".rstrip() for i, text in enumerate(texts)]
        return "\n".join(lines)


def _text(value: Any) -> str:
    """A value of a result for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(x)}" for key, x in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"({_text(x)})" if isinstance(x, list | tuple) else _text(x) for x in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """A value of a result in JSON's terms; what is not finite is null."""
    if isinstance(value, Interval):
        return {end: plain(x) for end, x in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics() -> list[Metric]:
    """One of each metric that a file of this folder defines, in order of name."""
    found = []
    for info in pkgutil.iter_modules(importlib.import_module("saes.metrics").__path__):
        module = importlib.import_module(f"saes.metrics.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Metric) and hasattr(value, "name"):
                found += [value()] if value.__module__ == module.__name__ else []
    return sorted(found, key=lambda metric: metric.name)


@contextlib.contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Evaluation mode (batch-coupled methods: their threshold) inside the block; every flag back after it."""
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    modes = [(module, module.training) for module in modules]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
