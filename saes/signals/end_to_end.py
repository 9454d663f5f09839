"""End-to-end training: what the model does with the reconstruction (Braun et al. 2024, https://arxiv.org/abs/2405.12241)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.capturing import edited, left_as_found
from interp.edits import Edit, Rows
from interp.models.base import Model
from interp.types import JSON, ActivationStore, Inputs, Site
from saes.penalties.base import Step, reconstruction


class EndToEnd:
    """How far a model's output moves when the SAE's output takes the place of the activations it was given.

    A training signal: `Job(sae, signal=EndToEnd(model, store))`, over `interp.stores.whole_examples`, since the model
    has to run on whole examples (of others, the rows that are in the batch are replaced and the rest stays clean).
    `measure` says how outputs are compared, with the clean output held fixed:

    - `kl`: the divergence of the spliced model's prediction from the clean one's, in nats, averaged over positions
      that hold data (or examples, for a classifier),
    - `cosine`: 1 less the cosine between the embeddings of an example, averaged over examples, for encoders.

    Beside it may stand the squared error at later sites (the paper's e2e + downstream), here over the clean
    activations' squared deviation from their mean, averaged over these sites, and the reconstruction error of training.
    The model runs twice a step, and backward once; it is left as it was found. For SAEs with prefixes all this is the
    mean over the prefixes.

    Args:
        model: What made the store.
        store: The store that is trained on.
        measure: `kl`, `cosine`, or None for `kl` where the model is causal and else `cosine`.
        downstream: Later sites at which to compare.
        downstream_coefficient: Weight of their mean error.
        reconstruction_coefficient: Weight of the squared error of reconstruction, in units of training.
        inputs: Makes inputs of some examples of the store by their numbers, for models of images, say; by default from
            the tokens that the store kept.

    Raises:
        ValueError: If `measure` is unknown, the model has no such site, a coefficient is negative, or the store holds
            no tokens to run the model on; in training, if the model gives no logits or the SAE predicts another site.
    """

    def __init__(
        self,
        model: Model,
        store: ActivationStore,
        *,
        measure: Literal["kl", "cosine"] | None = None,
        downstream: Sequence[str | Site] = (),
        downstream_coefficient: float = 1.0,
        reconstruction_coefficient: float = 0.0,
        inputs: Callable[[Sequence[int]], Inputs] | None = None,
    ) -> None:
        self.measure = measure or ("kl" if getattr(model, "is_causal", False) else "cosine")
        if self.measure not in _MEASURES:
            raise ValueError(f"measure is {measure!r}, but it is one of {', '.join(_MEASURES)}: choose one.")
        for name, value in (("downstream", downstream_coefficient), ("reconstruction", reconstruction_coefficient)):
            if not value >= 0:
                raise ValueError(f"{name}_coefficient is {value}, but it is at least 0: give 0 for none.")
        if inputs is None and next(iter(store.items)).tokens is None:
            raise ValueError(
                f"inputs is None, but items of the store ({store.site}) hold no tokens to run {model.name} on: give a "
                "function from numbers of examples to inputs, lambda numbers: model.collate([pictures[i] for i in "
                "numbers])."
            )
        self.model, self.store, self.site = model, store, model.site(store.site)
        self.downstream = tuple(model.site(site) for site in downstream)
        if self.site in self.downstream:
            raise ValueError(f"downstream names {self.site}, where the SAE itself is: name later sites.")
        self.downstream_coefficient = downstream_coefficient
        self.reconstruction_coefficient = reconstruction_coefficient
        self._inputs = inputs or self._collated

    def to_json(self) -> JSON:
        """What a run records."""
        return {
            "class": f"{type(self).__module__}.{type(self).__name__}",
            "model": self.model.name,
            "measure": self.measure,
            "downstream": [str(site) for site in self.downstream],
            "downstream_coefficient": self.downstream_coefficient,
            "reconstruction_coefficient": self.reconstruction_coefficient,
        }

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """The signal of one batch."""
        if step.activations.target is not None:
            raise ValueError(
                f"the SAE predicts another site than {self.site}, but EndToEnd puts its output there: train a "
                "transcoder on reconstruction, or an SAE of one site end to end."
            )
        recons = step.recon[None] if step.prefix_recons is None else step.prefix_recons
        examples, own = step.activations.example.unique(return_inverse=True)
        inputs = self._inputs(examples.tolist())
        total = step.recon.new_zeros(())
        with left_as_found(self.model, frozen=True):
            with torch.no_grad():
                clean = self._run(inputs)
            for recon in recons:
                # The model's graph ends here: it is let go of at once, and gradients reach the SAE through the engine.
                given = (recon.detach() / step.scale).requires_grad_()
                with torch.enable_grad():
                    spliced = self._run(inputs, {self.site: _replaced(given, own, step.activations.position)})
                    loss = self._distance(clean, spliced, inputs)
                    (grad,) = torch.autograd.grad(loss, given)
                total = total + _Known.apply(recon, loss.detach().to(recon), grad / step.scale)
        total = total / len(recons)
        if self.reconstruction_coefficient:
            total = total + self.reconstruction_coefficient * reconstruction(step)
        return total

    def _collated(self, examples: Sequence[int]) -> Inputs:
        model: Any = self.model
        inputs: Inputs = model.collate([self.store.items[example].tokens for example in examples])
        return inputs

    def _run(self, inputs: Inputs, edits: Mapping[Site | str, Edit] | None = None) -> dict[Any, Any]:
        """Run the model: its output, and activations downstream."""
        found: dict[Any, Any] = {}
        readers: dict[Site | str, Any] = {site: functools.partial(_kept, found, site) for site in self.downstream}
        with edited(self.model, readers | dict(edits or {}), inputs=inputs):
            found["output"] = self.model.forward(inputs)
        return found

    def _distance(self, clean: Mapping[Any, Any], spliced: Mapping[Any, Any], inputs: Inputs) -> Float[Tensor, ""]:
        loss = _MEASURES[self.measure](self.model, clean["output"], spliced["output"], inputs)
        if not self.downstream or self.downstream_coefficient == 0:
            return loss
        errors = []
        for site in self.downstream:
            known = clean[site].float()
            deviation = (known - known.flatten(0, -2).mean(0)).square().sum()
            errors.append((spliced[site].float() - known).square().sum() / deviation)
        return loss + self.downstream_coefficient * torch.stack(errors).mean()


def _replaced(values: Float[Tensor, "n d_in"], own: Int[Tensor, " n"], position: Int[Tensor, " n"]) -> Edit:
    """Put rows where they are from: an example of the batch, and a position."""

    def change(rows: Rows) -> Tensor:
        rows.need_width("the SAE", values.shape[1])
        at = (own * rows.shape[1] + position).to(rows.values.device)
        return rows.values.index_copy(0, at, values.to(rows.values))

    return Edit(change)


def _kept(found: dict[Any, Any], site: Site, value: Tensor) -> Tensor:
    found[site] = value
    return value


def _kl(model: Model, clean: Any, spliced: Any, inputs: Inputs) -> Float[Tensor, ""]:
    known, moved = (_log_probabilities(model, output) for output in (clean, spliced))
    divergence = (known.exp() * (known - moved)).sum(-1)
    if inputs.mask is None or inputs.mask.shape != divergence.shape:
        return divergence.mean()
    return divergence[inputs.mask.to(divergence.device)].mean()


def _log_probabilities(model: Model, output: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None:
        raise ValueError(f"measure is 'kl', but {model.name} gives no logits: compare embeddings, measure='cosine'.")
    return logits.float().log_softmax(-1)


def _cosine(model: Any, clean: Any, spliced: Any, inputs: Inputs) -> Float[Tensor, ""]:
    known, moved = (model.embedding(output, inputs).float() for output in (clean, spliced))
    return (1 - torch.cosine_similarity(known, moved, dim=-1)).mean()


_MEASURES: dict[str, Callable[[Model, Any, Any, Inputs], Tensor]] = {"kl": _kl, "cosine": _cosine}


class _Known(torch.autograd.Function):
    """A loss whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, recon: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return loss

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * by, None, None
