"""What each latent of a dictionary adds to a change of a score, with what is left over beside it.

Attribution patching (Nanda 2023, https://www.neelnanda.io/mechanistic-interpretability/attribution-patching) on sparse
features with an error node (Marks et al. 2024, https://arxiv.org/abs/2403.19647): two forward passes and one backward
for all latents at all positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.baselines import Baseline, baseline_values
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.base import Score
from analyses.scores.class_logit import ClassLogit
from analyses.through import fits
from interp.captured import channels_last
from interp.models.base import Model
from interp.types import Directions, Inputs, Latents, Site


@dataclass(frozen=True)
class Ledger:
    """Where the change of a score comes from when activations go from what they are to a baseline.

    All numbers are in units of the score. Up to the `residual`, effects of latents, of what the dictionary does not
    reconstruct and of its bias add up to the change.

    Args:
        removed: What taking away each code of the activations adds, a row a position, examples one after the other.
        added: What putting in each code of the baseline adds.
        error: What the change of the reconstruction's error adds, at each position.
        bias: What the change of the decoder's bias adds, at each position; 0 where both sides have it.
        change: Score at the baseline less the score.
    """

    removed: Latents
    added: Latents
    error: Float[Tensor, "b p"]
    bias: Float[Tensor, "b p"]
    change: Float[Tensor, " b"]

    @property
    def residual(self) -> Float[Tensor, " b"]:
        """What the change is beside the effects: 0 where the score is linear in the activations."""
        return self.change - (self.by_feature().sum(dim=1) + self.error.sum(dim=1) + self.bias.sum(dim=1))

    def by_feature(self) -> Float[Tensor, "b d_sae"]:
        """The effect of each feature, summed over positions."""
        b, p = self.error.shape
        total = self.removed.values.new_zeros(b * self.removed.d_sae)
        for side in (self.removed, self.added):
            total.index_add_(0, side.rows // p * side.d_sae + side.indices, side.values)
        return total.view(b, -1)

    def at(self, feature: int) -> Float[Tensor, "b p"]:
        """The effect of one feature at each position, prefix tokens counted."""
        column = torch.tensor([feature], device=self.removed.indices.device)
        return sum(side.columns(column)[:, 0] for side in (self.removed, self.added)).view(self.error.shape)  # type: ignore[union-attr]

    def top(self, n: int = 10) -> list[tuple[int, float]]:
        """Features of the largest mean effect, whatever its sign: number and mean over examples."""
        mean = self.by_feature().mean(dim=0)
        order = mean.abs().topk(min(n, len(mean))).indices.tolist()
        return [(feature, float(mean[feature])) for feature in order]

    def __str__(self) -> str:
        """Means over examples, a line each."""
        effects = self.by_feature()
        lines = [(f"latent {feature}", value) for feature, value in self.top(5)]
        lines += [
            (f"{int((effects != 0).any(dim=0).sum())} latents", float(effects.sum(dim=1).mean())),
            ("error", float(self.error.sum(dim=1).mean())),
            ("bias", float(self.bias.sum(dim=1).mean())),
            ("residual", float(self.residual.mean())),
            ("size of residuals", float(self.residual.abs().mean())),
            ("change of the score", float(self.change.mean())),
        ]
        return "\n".join(f"{name:>20} {value:+.6g}" for name, value in lines)


def attribute_latents(
    model: Model,
    inputs: Inputs,
    directions: Directions,
    *,
    score: Score | Callable[[Any], Tensor] | None = None,
    baseline: Baseline = None,
    site: str | Site | None = None,
    steps: int = 1,
    batch_size: int = 32,
) -> Ledger:
    """Attribute a change of a score to every latent of a dictionary at once, at every position.

    The effect of a code is its change times the gradient of the score along its decoder row. For a score that is linear
    in the activations this is what patching the latent alone would do.

    Args:
        model: The model.
        inputs: The examples.
        directions: The dictionary.
        score: As in `analyses.attributing.attribute`.
        baseline: What activations go to: those of other inputs of the same shape, or one vector at all positions, codes
            and errors of these among the effects. None for 0: every latent, the error and the bias are taken away.
        site: Where; by default where the dictionary was made.
        steps: 1 for the gradient at the examples themselves; more for the mean of that many on the straight way to the
            baseline, with which the residual shrinks (integrated gradients, by the midpoint rule).
        batch_size: Examples that run at once.

    Raises:
        ValueError: If no site is known, widths differ, the baseline has another shape or holds data at other positions,
            or `steps` is less than 1.
    """
    where = site or directions.site
    if where is None:
        raise ValueError("site is None, and the directions do not know theirs: give site=.")
    if steps < 1:
        raise ValueError(f"steps is {steps}, but a gradient is taken somewhere: give at least 1.")
    runner = Runner(
        Scorer(model, score or ClassLogit()), Examples.all(inputs), model.site(where), batch_size=batch_size
    )
    values = runner.values
    base = baseline_values(runner, baseline)
    grads = torch.zeros_like(values)
    # One step is the gradient at the examples themselves; more are the middles of as many parts of the way.
    places = [(i + 0.5) / steps for i in range(steps)] if steps > 1 else [0.0]
    for part in runner.gradients_of(values + place * (base - values) for place in places):
        grads += part / steps
    change = runner.scores(base) - runner.scores(values)
    clean, other, slopes = (_rows(runner, part) for part in (values, base, grads))
    b, p, d = clean.shape
    fits(directions, runner.site, d)
    along = slopes.flatten(0, 1).to(directions.W_dec)
    removed = _effects(directions, clean.flatten(0, 1), along, -1.0)
    if baseline is None:
        added, bias = _none(removed), -(along @ _origin(directions))
    else:
        added, bias = _effects(directions, other.flatten(0, 1), along, 1.0), along.new_zeros(b * p)
    moved = ((other - clean).flatten(0, 1).to(along) * along).sum(dim=1)
    # The error's change is what the other parts leave of the activation's.
    error = moved - bias - _by_row(removed) - _by_row(added)
    return Ledger(removed, added, error.view(b, p), bias.view(b, p), change)


def _rows(runner: Runner, values: Tensor) -> Float[Tensor, "b p d"]:
    """One vector a position, prefix tokens among them; 0 where positions are padded."""
    rows = channels_last(values, runner.geometry, runner.site).flatten(1, -2)
    return rows if runner.held is None else rows * runner.held[:, :, None].to(rows)


def _effects(directions: Directions, rows: Float[Tensor, "n d"], along: Float[Tensor, "n d"], sign: float) -> Latents:
    """Each code times the gradient along its decoder row."""
    latents = directions.encode(rows.to(along)).detach()
    slopes = (along[latents.rows] * directions.W_dec.detach()[latents.indices]).sum(dim=1)
    return latents.with_values(sign * latents.values * slopes)


def _by_row(effects: Latents) -> Float[Tensor, " n"]:
    return effects.values.new_zeros(len(effects)).index_add_(0, effects.rows, effects.values)


def _none(like: Latents) -> Latents:
    empty = like.indices[:0]
    return Latents.from_pairs(like.values[:0], empty, empty, len(like), like.d_sae)


def _origin(directions: Directions) -> Float[Tensor, " d_in"]:
    """What no code at all decodes to."""
    empty = torch.zeros(0, dtype=torch.long, device=directions.W_dec.device)
    return directions.decode(
        Latents.from_pairs(directions.W_dec.detach().new_zeros(0), empty, empty, 1, directions.d_sae)
    )[0].detach()
