"""What is explained: one number an example, computed from a forward pass."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.captured import channels_last
from interp.models.base import Model
from interp.types import Geometry, Inputs, Site


@dataclass(frozen=True)
class Pass:
    """One forward pass, as a score sees it.

    Args:
        model: What ran.
        inputs: What it ran on.
        output: What its forward returned.
        values: Activations of the sites that the score reads, as the model makes them.
        geometries: How their positions are laid out.
        numbers: Which of all examples asked about these are; None for all of them, in order.
        total: How many were asked about, where `numbers` are given.
    """

    model: Model
    inputs: Inputs
    output: Any
    values: Mapping[Site, Tensor] = field(default_factory=dict)
    geometries: Mapping[Site, Geometry] = field(default_factory=dict)
    numbers: Int[Tensor, " b"] | None = None
    total: int = 0

    def own(self, name: str, given: Tensor, shape: str) -> Tensor:
        """What these examples have of something that was given one for each, whichever of all run together.

        Args:
            name: What messages call it.
            given: One entry for each example asked about.
            shape: What messages tell to give.

        Raises:
            ValueError: If it has another number of entries.
        """
        total = len(self.inputs) if self.numbers is None else self.total
        if len(given) != total:
            raise ValueError(f"{name} has {len(given)} entries, but there are {total} examples: give {shape}.")
        return given if self.numbers is None else given[self.numbers.to(given.device)]

    def embedding(self) -> Float[Tensor, "b d"]:
        """One vector an example: the model's own, or what its forward returned where that is one.

        Raises:
            ValueError: If there is none.
        """
        own = getattr(self.model, "embedding", None)
        found = own(self.output, self.inputs) if own else self.output
        if not isinstance(found, Tensor) or found.ndim != 2:
            raise ValueError(
                f"{self.model.name} has no embedding: its forward returned {_named(found)}, not [b, d]. Give a "
                "function of what it returns as the score."
            )
        return found

    def logits(self) -> Float[Tensor, "b ..."]:
        """Scores of classes or of the vocabulary.

        Raises:
            ValueError: If the model has no trained head.
        """
        found = getattr(self.output, "logits", self.output)
        if not isinstance(found, Tensor):
            raise ValueError(
                f"{self.model.name} has no logits: its forward returned {_named(self.output)}. Choose a score without "
                "classes (EmbeddingNorm, Similarity, Latent), or give a function of what it returns."
            )
        return found

    def rows(self, site: Site) -> tuple[Float[Tensor, "b p d"], Bool[Tensor, "b p"] | None]:
        """One vector a position of a site that the score reads; and which positions hold data, None for all."""
        values = channels_last(self.values[site], self.geometries[site], site).flatten(1, -2)
        mask = self.inputs.mask
        return values, None if mask is None or mask.shape != values.shape[:2] else mask.to(values.device)


class Score(ABC):
    """One number an example. The constructor is the configuration.

    `sites` names what it reads beside the model's output.
    """

    @property
    def sites(self) -> tuple[str | Site, ...]:
        """Sites whose activations it reads."""
        return ()

    @abstractmethod
    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The scores of one batch, with autograd.

        Raises:
            ValueError: If the model does not give what the score needs.
        """

    def held(self, runs: Iterable[Pass]) -> "Score":
        """The same score with whatever it chooses by example held fixed, as these runs of all examples have it."""
        return self

    def contrast(self, runs: Iterable[Pass]) -> "Score | None":
        """What these examples show least, for judges that ask whether it is mapped elsewhere; None where there is no
        such thing."""
        return None

    def loss(self, run: Pass) -> Float[Tensor, " b"]:
        """What training on the examples would lessen: minus the score, unless there is a better one."""
        return -self(run)


def _named(found: Any) -> str:
    return f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
