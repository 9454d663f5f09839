"""Passes of a model over examples, a chunk at a time, with one score an example."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from analyses.scores.base import Pass, Score
from interp.captured import Capture
from interp.capturing import capture, left_as_found
from interp.models.base import Model, hook
from interp.types import Inputs, Site


@dataclass(frozen=True)
class Examples:
    """Some of the examples that were asked about.

    Args:
        inputs: What the model runs on.
        numbers: Which of all they are; one may be there several times.
        total: How many there are in all.
    """

    inputs: Inputs
    numbers: Int[Tensor, " n"]
    total: int

    @classmethod
    def all(cls, inputs: Inputs) -> "Examples":
        """All examples of a batch."""
        return cls(inputs, torch.arange(len(inputs)), len(inputs))

    def __len__(self) -> int:
        return len(self.numbers)

    def some(self, chosen: Int[Tensor, " m"]) -> "Examples":
        """Some of these, by their places here."""
        mask = self.inputs.mask
        tensors = {name: value[chosen.to(value.device)] for name, value in self.inputs.tensors.items()}
        cut = Inputs(tensors, None if mask is None else mask[chosen.to(mask.device)])
        return Examples(cut, self.numbers[chosen], self.total)

    def chunks(self, size: int) -> Iterator["Examples"]:
        """These in order, so many at a time."""
        for chosen in torch.arange(len(self)).split(size):
            yield self.some(chosen)

    def alike(self) -> Iterator["Examples"]:
        """Those of one length together, padding on the right cut off, so that nothing that is done to all positions is
        done to padding."""
        mask = self.inputs.mask
        if mask is None or bool(mask.all()):
            yield self
            return
        lengths = mask.sum(dim=1)
        on_the_right = mask == (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])
        lengths = torch.where(on_the_right.all(dim=1), lengths, mask.shape[1])
        for length in torch.unique(lengths).tolist():
            group = self.some((lengths == length).nonzero()[:, 0].cpu())
            whole = group.inputs.mask
            assert whole is not None
            tensors = {
                name: value[:, :length] if value.shape[:2] == whole.shape else value
                for name, value in group.inputs.tensors.items()
            }
            yield Examples(Inputs(tensors, whole[:, :length]), group.numbers, self.total)


@dataclass(frozen=True)
class Scorer:
    """A model and what is asked of it.

    Args:
        model: The model.
        score: One of `analyses.scores`, or a function from what the model's forward returns to one number an example;
            None where nothing is asked.
    """

    model: Model
    score: Any

    def run(self, examples: Examples, sites: Sequence[Site] = (), *, grads: bool = True) -> Capture:
        """One pass: activations at some sites, scores where they are asked for, and their gradients.

        Args:
            examples: What runs at once.
            sites: Where activations are read.
            grads: Take gradients too.

        Raises:
            ValueError: If the score is not one number an example, or as `capture`.
        """
        if self.score is None:
            return capture(self.model, examples.inputs, sites)
        reads = self.score.sites if isinstance(self.score, Score) else ()
        return capture(self.model, examples.inputs, sites, score=_Of(self, examples), reads=reads, grads=grads)

    def of(self, seen: Pass) -> Float[Tensor, " b"]:
        """The scores of a pass."""
        found = self.score(seen) if isinstance(self.score, Score) else self.score(seen.output)
        if not isinstance(found, Tensor) or found.shape != (len(seen.inputs),):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"score gave {shape} for {len(seen.inputs)} examples, but maps need one number an example: return a "
                f"tensor of shape [{len(seen.inputs)}]."
            )
        return found

    def forward(self, examples: Examples) -> Pass:
        """The plain forward pass, with whatever autograd and hooks are at work around it, as a score sees it."""
        reads = [self.model.site(site) for site in self.score.sites] if isinstance(self.score, Score) else []
        values: dict[Site, Tensor] = {}
        with contextlib.ExitStack() as stack:
            for site in reads:
                keep = _Kept(functools.partial(values.setdefault, site))
                stack.callback(hook(self.model.place(site), keep, site).remove)
            output = self.model.forward(examples.inputs)
        return self.seen(examples, output, values)

    def weight_gradients(self, examples: Examples) -> dict[nn.Parameter, Tensor]:
        """The gradient of the summed loss of some examples with respect to each weight that has one.

        Args:
            examples: What runs at once.

        Raises:
            ValueError: If the score depends on none.
        """
        weights = [weight for weight in self.model.module.parameters() if weight.is_floating_point()]
        with contextlib.ExitStack() as stack:
            stack.enter_context(left_as_found(self.model, frozen=False))
            stack.enter_context(torch.enable_grad())
            for weight in weights:
                stack.callback(weight.requires_grad_, weight.requires_grad)
                weight.requires_grad_(True)
            seen = self.forward(examples)
            loss = self.score.loss(seen) if isinstance(self.score, Score) else -self.of(seen)
            if not loss.requires_grad:
                raise ValueError(
                    f"the score depends on no weight of {self.model.name}, but a step of training moves some."
                )
            slopes = torch.autograd.grad(loss.sum(), weights, allow_unused=True)
        return {weight: slope for weight, slope in zip(weights, slopes, strict=True) if slope is not None}

    def seen(self, examples: Examples, output: Any, values: dict[Site, Tensor]) -> Pass:
        """A pass as a score sees it."""
        geometries = {site: self.model.geometry(site, examples.inputs) for site in values}
        return Pass(self.model, examples.inputs, output, values, geometries, examples.numbers, examples.total)


@dataclass(frozen=True)
class _Kept:
    """A hook that keeps the first value that it is shown."""

    keep: Callable[[Tensor], Tensor]

    def __call__(self, value: Tensor) -> None:
        self.keep(value)


@dataclass(frozen=True)
class _Of:
    """What `capture` calls. No closure: the tests' shape checks would compile it at each call."""

    scorer: Scorer
    examples: Examples

    def __call__(self, output: Any, values: dict[Site, Tensor] | None = None) -> Tensor:
        return self.scorer.of(self.scorer.seen(self.examples, output, values or {}))


class Passes:
    """One pass for each chunk of examples; a single one is kept, several are run again when asked.

    Args:
        scorer: The model and the score.
        examples: What runs.
        sites: Where activations are read.
        batch_size: Examples that run at once.
    """

    def __init__(self, scorer: Scorer, examples: Examples, sites: Sequence[Site], batch_size: int) -> None:
        self._scorer, self._examples, self._sites, self._batch_size = scorer, examples, sites, batch_size
        self._kept: Capture | None = None

    def __iter__(self) -> Iterator[tuple[Examples, Capture]]:
        """Each chunk, and what its pass gave."""
        for chunk in self._examples.chunks(self._batch_size):
            found = self._kept or self._scorer.run(chunk, self._sites)
            if len(chunk) == len(self._examples):
                self._kept = found
            yield chunk, found
