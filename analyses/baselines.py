"""What activations are compared with: nothing at all, one vector everywhere, or what other inputs make."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.passes import Examples
from analyses.running import Runner
from interp.captured import channels_last
from interp.types import Inputs

Baseline = Inputs | Float[Tensor, " d"] | float | None


def baseline_values(runner: Runner, baseline: Baseline) -> Tensor:
    """The baseline as the model makes activations, a row for each example of a runner.

    Args:
        runner: Examples at a site, whichever of all run together.
        baseline: Other inputs of the same shape, one for each example asked about; one vector for all positions, or one
            number for all activations; or None for 0.

    Raises:
        ValueError: If the baseline has another shape, or holds data at other positions.
    """
    values = runner.values
    if baseline is None or isinstance(baseline, int | float):
        return torch.full_like(values, baseline or 0)
    if isinstance(baseline, Inputs):
        return _of_inputs(runner, baseline)
    base = values.clone()
    seen = channels_last(base, runner.geometry, runner.site)
    if baseline.shape != seen.shape[-1:]:
        raise ValueError(
            f"baseline has shape {list(baseline.shape)}, but activations at {runner.site} are vectors of width "
            f"{seen.shape[-1]}: give [{seen.shape[-1]}] (their mean, say), other inputs, or None for 0."
        )
    seen.copy_(baseline.to(base).expand_as(seen))
    return base


def _of_inputs(runner: Runner, baseline: Inputs) -> Tensor:
    every, total = Examples.all(baseline), runner.examples.total
    as_many = len(every) == total
    own = _as_long(every.some(runner.examples.numbers), runner.inputs) if as_many else every
    base = Runner(runner.scorer, own, runner.site, batch_size=runner.batch_size).values
    if not as_many or base.shape != runner.values.shape:
        raise ValueError(
            f"baseline gives activations of shape {[len(every), *base.shape[1:]]} at {runner.site}, but inputs "
            f"{[total, *runner.values.shape[1:]]}: give as many examples, of the same lengths."
        )
    if not _alike(own.inputs.mask, runner.inputs.mask):
        raise ValueError(
            "baseline holds data at other positions than inputs, but each position is compared with the same one: give "
            "examples of the same lengths, with their mask."
        )
    return base


def _as_long(own: Examples, inputs: Inputs) -> Examples:
    """Padding is cut off where it was cut off the examples."""
    if inputs.mask is None or own.inputs.mask is None or inputs.mask.shape == own.inputs.mask.shape:
        return own
    groups = list(own.alike())
    return groups[0] if len(groups) == 1 else own


def _alike(one: Bool[Tensor, "b p"] | None, other: Bool[Tensor, "b p"] | None) -> bool:
    if one is None or other is None:
        return all(mask is None or bool(mask.all()) for mask in (one, other))
    return torch.equal(one.cpu(), other.cpu())
