"""All metrics of some directions on a store, with intervals over examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import JSON, ActivationStore, Directions
from saes.metrics.base import (
    Additive,
    FeatureMetric,
    Metric,
    ModelMetric,
    RowMetric,
    Splice,
    evaluating,
    metrics,
    plain,
)
from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.splicing import TextModel
from saes.metrics.summing import Pass

_EXAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; `evaluation["fvu"]` is an `Interval`.

    Args:
        metrics: Each metric by name, with its 95 % interval over examples.
        rows: Rows evaluated; `dead` is meant in this number of rows.
        examples: Examples they come from.
        density: Fraction of the rows in which each feature fires.
        site: Where the rows were read.
        store: Fingerprint of the store.
        model_examples: Examples on which the model was run.
    """

    metrics: Mapping[str, Interval]
    rows: int
    examples: int
    density: Float[Tensor, " d_sae"]
    site: str
    store: str
    model_examples: int = 0

    def __getitem__(self, name: str) -> Interval:
        return self.metrics[name]

    def to_json(self) -> JSON:
        """Plain values, without the density of each feature; what is undefined is null."""
        counts = {"rows": self.rows, "examples": self.examples, "model_examples": self.model_examples}
        return {"metrics": plain(self.metrics), **counts, "site": self.site, "store": self.store}

    def __str__(self) -> str:
        width = max(map(len, self.metrics))
        lines = [f"{'metric':{width}}  {'value':>8}  95 % interval"]
        for name, interval in self.metrics.items():
            ends = "" if interval.low is None else f"{interval.low:.4g} to {interval.high:.4g}"
            lines.append(f"{name:{width}}  {interval.value:8.4g}  {ends}".rstrip())
        model = f"; the model was run on {self.model_examples:,} of these" if self.model_examples else ""
        return "\n".join([*lines, f"{self.rows:,} rows of {self.examples:,} examples at {self.site}{model}"])


def evaluate(
    directions: Directions,
    store: ActivationStore,
    *,
    model: TextModel | None = None,
    batch_size: int = 4096,
    resamples: int = 1000,
    seed: int = 0,
    max_rows: int | None = None,
    max_loss_examples: int = 256,
) -> Evaluation:
    """Run every metric of `saes.metrics` over a store in stored order, in evaluation mode.

    The store is read twice, for the mean and for the metrics; nothing of size rows x features is held. Where it has
    gradients, an SAE that may select by them is judged in both ways: `fvu` is by activation alone, `fvu_by_gradient`
    by both, and so on.

    Args:
        directions: What is judged: an SAE, a PCA, the raw channels.
        store: Held-out rows.
        model: The text model the rows come from, for `loss_recovered` (causal) or `embedding_cosine` (encoders).
        batch_size: Rows at a time; it changes no value beyond rounding.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.
        max_rows: First rows to evaluate; None for all.
        max_loss_examples: Examples the model is run on, evenly spaced over those evaluated.

    Raises:
        ValueError: If widths differ, a number is not positive, or the store has no tokens to run the model on.
    """
    _check(directions, store, max_rows, max_loss_examples)
    every = metrics()
    with torch.no_grad(), evaluating(directions, getattr(model, "module", None)):
        reading = Pass(directions, store, batch_size, max_rows)
        kinds = [metric for metric in every if isinstance(metric, RowMetric)]
        selection = getattr(directions, "selection", "act")
        sums, counts, rows_of = reading.sums(kinds, by_gradient=selection == "grad")
        seen = rows_of.nonzero().flatten()
        chosen = [] if model is None else _spaced(seen, max_loss_examples)
        totals = {metric: part[seen] for metric, part in sums.items()}
        totals |= _on_model(model, reading, chosen, rows_of, every)
        both = reading.sums(kinds, by_gradient=True) if selection == "auto" and reading.has_gradients else None

    def values(totals: Mapping[Additive, Tensor], counts: Tensor) -> dict[str, Interval]:
        found = {m.name: bootstrap(part, m.value, resamples=resamples, seed=seed) for m, part in totals.items()}
        return found | {m.name: Interval(m.value(counts)) for m in every if isinstance(m, FeatureMetric)}

    found = values(totals, counts)
    if both is not None:
        judged = values({metric: part[seen] for metric, part in both[0].items()}, both[1])
        found |= {f"{name}_by_gradient": interval for name, interval in judged.items()}
    n = int(rows_of.sum())
    return Evaluation(found, n, len(seen), counts / n, str(store.site), store.fingerprint, len(chosen))


def _check(directions: Directions, store: ActivationStore, max_rows: int | None, max_loss_examples: int) -> None:
    if directions.d_in != store.d_in:
        raise ValueError(
            f"store holds activations of width {store.d_in} at {store.site}, but the directions take "
            f"{directions.d_in}: harvest {directions.site or 'the site they were made for'}, or use others."
        )
    for name, value in (("max_rows", max_rows), ("max_loss_examples", max_loss_examples)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, but an evaluation needs some: give a positive number.")


def _on_model(
    model: TextModel | None, reading: Pass, examples: list[int], rows_of: Int[Tensor, " all"], every: Sequence[Metric]
) -> dict[Additive, Float[Tensor, "e q"]]:
    """Statistics of each example for the metrics that this kind of model has."""
    found: dict[Additive, Tensor] = {}
    for metric in every:
        if model is not None and isinstance(metric, ModelMetric) and metric.applies(model):
            # Those of a length together: texts of a model's longest beside short ones are half padding.
            order = rows_of[examples].argsort(stable=True)
            batches = ([examples[i] for i in part] for part in order.split(_EXAMPLES_AT_ONCE))
            splices = (Splice.of(model, reading.store, reading.directions, batch, reading.mean) for batch in batches)
            found[metric] = torch.cat([metric.statistics(splice) for splice in splices])[order.argsort()]
    return found


def _spaced(examples: Int[Tensor, " e"], most: int) -> list[int]:
    """At most so many of them, evenly spaced."""
    places = torch.linspace(0, len(examples) - 1, min(most, len(examples))).round().long()
    return examples[places].tolist()
