"""The logit of a class, or the difference of two (Simonyan et al. 2013, https://arxiv.org/abs/1312.6034)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.scores.base import Pass, Score


@dataclass(frozen=True, eq=False)
class ClassLogit(Score):
    """The logit of a class, before the softmax, which would bring in all other classes.

    Args:
        index: The class; one an example, or one for all; None for each example's highest.
        minus: A class whose logit is subtracted, likewise; None for none.
        position: Where the model gives logits at every position, the position that is read; negative ones count from
            the end of an example.
    """

    index: Any = None
    minus: Any = None
    position: int = -1

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The logits.

        Raises:
            ValueError: If there are no logits, no such class, or not as many indices as examples.
        """
        logits = self._of_classes(run)
        best = logits.argmax(dim=1)
        score = logits.gather(1, best[:, None])[:, 0] if self.index is None else self._taken(run, logits, "index")
        return score if self.minus is None else score - self._taken(run, logits, "minus")

    def held(self, runs: Iterable[Pass]) -> Score:
        """The class that each example has highest, by number."""
        if self.index is not None:
            return self
        return replace(self, index=torch.cat([self._of_classes(run).argmax(dim=1) for run in runs]))

    def contrast(self, runs: Iterable[Pass]) -> Score:
        """The class that each example has lowest."""
        return replace(self, index=torch.cat([self._of_classes(run).argmin(dim=1) for run in runs]))

    def loss(self, run: Pass) -> Float[Tensor, " b"]:
        """The cross-entropy of the class, in nats; minus the score where another class is subtracted."""
        return -self(run) if self.minus is not None else self._of_classes(run).logsumexp(dim=1) - self(run)

    def _of_classes(self, run: Pass) -> Float[Tensor, "b c"]:
        logits = run.logits()
        if logits.ndim == 2:
            return logits
        if logits.ndim != 3:
            raise ValueError(
                f"logits of {run.model.name} have shape {list(logits.shape)}, but a class is read from [b, c] or from "
                "[b, p, c]: give a function of what the model returns as the score."
            )
        b, p = logits.shape[:2]
        mask = torch.ones(b, p, dtype=torch.bool) if run.inputs.mask is None else run.inputs.mask
        lengths = mask.sum(dim=1)
        # Padding is wherever the mask says: positions are counted among those that hold data.
        at = torch.full_like(lengths, self.position) if self.position >= 0 else lengths + self.position
        if (at < 0).any() or (at >= lengths).any():
            raise ValueError(
                f"position is {self.position}, but an example has {int(lengths.min())} positions that hold data: "
                "choose one that all of them have."
            )
        place = (mask.cumsum(dim=1) == at[:, None] + 1).int().argmax(dim=1)
        return logits[torch.arange(b, device=logits.device), place.to(logits.device)]

    def _taken(self, run: Pass, logits: Float[Tensor, "b c"], name: str) -> Float[Tensor, " b"]:
        given = getattr(self, name)
        index = torch.as_tensor(given)
        if (index < 0).any() or (index >= logits.shape[1]).any():
            raise ValueError(
                f"{name} is {given}, but there are {logits.shape[1]} classes: choose 0..{logits.shape[1] - 1}."
            )
        if index.ndim:
            index = run.own(name, index, "one class an example, or one for all")
        return logits.gather(1, index.to(logits.device).long().expand(len(logits))[:, None])[:, 0]
