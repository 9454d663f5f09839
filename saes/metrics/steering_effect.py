"""Steering effect: what a step along a latent's direction does to a model's output, beside random directions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from interp.capturing import edited
from interp.editing import add
from interp.stores.shuffling import counter_key
from interp.types import ActivationStore, Directions, Inputs
from saes.metrics.base import Findings, Splice, evaluating
from saes.metrics.bootstrap import Interval, bootstrap
from saes.metrics.splicing import TextModel

Change = Callable[[Any, Any, Inputs], Float[Tensor, " b"]]

_PURPOSE = 0x57EE
_AT_ONCE = 16


@dataclass(frozen=True)
class SteeringEffect(Findings):
    """Change of a model's output per unit of steering; intervals are over examples.

    Args:
        effect: For each feature, the change along its direction.
        random: The change along random directions of the same length, averaged over these.
        above: For each feature, the difference of the two, paired.
        length: Of the step, in the units of the activations.
    """

    effect: Mapping[int, Interval]
    random: Interval
    above: Mapping[int, Interval]
    length: float


@torch.no_grad()
def steering_effect(
    model: TextModel,
    store: ActivationStore,
    directions: Directions,
    features: Sequence[int],
    *,
    length: float | None = None,
    change: Change | None = None,
    randoms: int = 8,
    max_examples: int = 64,
    resamples: int = 1000,
    seed: int = 0,
) -> SteeringEffect:
    """Add a latent's decoder row, scaled to a length, at every position that the store kept; compare outputs.

    The change is, for models that predict the next token, KL(clean || steered) in nats, averaged over the tokens of an
    example; for encoders 1 - cosine of the embeddings with and without. Both are divided by the length, and both grow
    faster than it while it is small: compare at one length.

    Args:
        model: The text model the rows come from.
        store: Its rows, with tokens.
        directions: The dictionary.
        features: Which latents.
        length: Of the step; None for the root mean square distance of the rows of these examples from their mean.
        change: What is measured instead, an example each, from both outputs and the inputs: a logit's change, say.
        randoms: Number of random directions.
        max_examples: Examples the model is run on, the first of the store.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the random directions and the draws.

    Raises:
        ValueError: If the store has no tokens, a feature is unknown, or a number is not positive.
    """
    unknown = [feature for feature in features if not 0 <= feature < directions.d_sae]
    if unknown or not features or min(randoms, max_examples) < 1 or (length is not None and not length > 0):
        raise ValueError(
            f"features are {list(features)} of {directions.d_sae}, with randoms={randoms}, max_examples={max_examples} "
            f"and length={length}: give features that exist, and positive numbers."
        )
    examples = range(min(max_examples, len(store.items)))
    if length is None:
        rows = torch.cat([store.example(i).values for i in examples]).float()
        length = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    W_dec = directions.W_dec.detach()
    generator = torch.Generator().manual_seed(int(counter_key(seed, _PURPOSE)) >> 1)
    steps = torch.cat([W_dec[list(features)], torch.randn(randoms, W_dec.shape[1], generator=generator).to(W_dec)])
    steps = F.normalize(steps, dim=1) * length
    measure = change or (_kl if model.is_causal else lambda *run: _turned(model, *run))
    with evaluating(directions, model.module):
        batches = [
            list(_changes(Splice.of(model, store, directions, examples[at : at + _AT_ONCE], W_dec[0]), steps, measure))
            for at in range(0, len(examples), _AT_ONCE)
        ]
    changes = torch.cat([torch.stack(batch, dim=1) for batch in batches]) / length
    by_chance = changes[:, len(features) :].mean(dim=1)

    def over(values: Tensor) -> Interval:
        sums = torch.stack([values, torch.ones_like(values)], dim=1)
        return bootstrap(sums, lambda totals: totals[..., 0] / totals[..., 1], resamples=resamples, seed=seed)

    effect = {feature: over(changes[:, i]) for i, feature in enumerate(features)}
    above = {feature: over(changes[:, i] - by_chance) for i, feature in enumerate(features)}
    return SteeringEffect(effect, over(by_chance), above, length)


def _changes(splice: Splice, steps: Float[Tensor, "s d_in"], measure: Change) -> Iterator[Float[Tensor, " b"]]:
    """The change of each example, a step at a time."""
    clean = splice.clean()
    for step in steps:
        edit = add(step, positions=splice.keep)
        with edited(splice.model, {splice.site: edit}, inputs=splice.inputs):
            steered = splice.model.forward(splice.inputs)
        yield measure(clean, steered, splice.inputs).double().cpu()


def _kl(clean: Any, steered: Any, inputs: Inputs) -> Float[Tensor, " b"]:
    """KL divergence of what is predicted, averaged over tokens."""
    first, second = (output.logits.double().log_softmax(dim=-1) for output in (clean, steered))
    each = (first.exp() * (first - second)).sum(dim=-1)
    weights = torch.ones_like(each) if inputs.mask is None else inputs.mask.to(each)
    return (each * weights).sum(dim=1) / weights.sum(dim=1)


def _turned(model: TextModel, clean: Any, steered: Any, inputs: Inputs) -> Float[Tensor, " b"]:
    """How far embeddings turn."""
    first, second = (model.embedding(output, inputs).double() for output in (clean, steered))
    return 1 - torch.cosine_similarity(first, second, dim=1)
