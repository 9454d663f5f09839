"""What a class activation map of one layer is: a pure function of its activations and their gradient."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

Details = dict[str, Tensor]


class LocalMethod(ABC):
    """A map from the activations of one layer and the gradient of a score there.

    Maps are raw and signed, in the units that each method states. Each example is mapped on its own: nothing of a map
    depends on the rest of the batch. The constructor is the configuration and takes no required argument.

    `gradient` says whether the gradient is used; `one_channel` whether the method says anything about a single
    channel, as a latent of a dictionary is.
    """

    gradient: ClassVar[bool] = True
    one_channel: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> Float[Tensor, " b *grid"]:
        """The maps.

        Args:
            acts: Activations of one layer, channels last, prefix tokens and padding left out.
            grads: Gradient of each example's score with respect to them.

        Raises:
            ValueError: If the method needs a gradient and there is none, or the shapes differ.
        """

    def measured(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"] | None = None
    ) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps, and what the method knows about how far to trust them: one number an example under each name."""
        return self(acts, grads), {}


def checked(method: object, acts: Float[Tensor, "b *grid d"], grads: Tensor | None) -> Float[Tensor, "b *grid d"]:
    """The gradient, of the activations' shape.

    Raises:
        ValueError: If there is none, or it has another shape.
    """
    if grads is None:
        raise ValueError(
            f"grads is None, but {type(method).__name__} is made from the gradient of a score: give "
            "capture(..., score=).grads, or choose a method without one (EigenCAM)."
        )
    if grads.shape != acts.shape:
        raise ValueError(
            f"grads has shape {tuple(grads.shape)}, but acts {tuple(acts.shape)}: give the gradient at the same layer."
        )
    return grads


def over_grid(values: Float[Tensor, "b *grid d"]) -> tuple[int, ...]:
    """The axes of the positions."""
    return tuple(range(1, values.ndim - 1))
