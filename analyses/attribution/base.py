"""What an attribution is that runs the model more than once: a function of a runner at one site."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from analyses.cam.base import Details
from analyses.running import Runner

Reduce = Literal["sum", "norm", "max"]


class ModelMethod(ABC):
    """Maps made by running the model with other activations at a site.

    Maps are raw and signed, in the units that each method states, and nothing of one depends on the other examples of
    the batch. The constructor is the configuration and takes no required argument.

    `attends` says whether the method is made of attention patterns, which not every model has or shows; `scored`
    whether it asks for a score.
    """

    attends: ClassVar[bool] = False
    scored: ClassVar[bool] = True

    @abstractmethod
    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps, and what the method knows about how far to trust them: one number an example under each name.

        Args:
            runner: The examples at a site.
        """


def over_channels(values: Float[Tensor, "b *grid d"], reduce: Reduce) -> Float[Tensor, " b *grid"]:
    """One number a position: the sum of the channels, their norm, or the largest of their sizes.

    Raises:
        ValueError: If `reduce` is none of these.
    """
    if reduce == "sum":
        return values.sum(dim=-1)
    if reduce == "norm":
        return values.norm(dim=-1)
    if reduce == "max":
        return values.abs().amax(dim=-1)
    raise ValueError(f"reduce is {reduce!r}, but channels become one number by 'sum', 'norm' or 'max': choose one.")
