"""What a segmentation of one layer is: the objects that its activations set apart, a pure function of these."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """Objects of each example, in the order in which they were found.

    An object that a method cannot tell, as in a picture all of one colour, has an empty mask.

    Args:
        masks: True at the positions of each object.
        saliency: What each mask was cut from: signed, in the units that each method states.
        details: What the method knows about how far to trust each object, under a name: one number an object.
    """

    masks: Bool[Tensor, "b k *grid"]
    saliency: Float[Tensor, "b k *grid"]
    details: Mapping[str, Float[Tensor, "b k"]]

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def found(self) -> Bool[Tensor, "b k"]:
        """Which objects are there."""
        return self.masks.flatten(2).any(dim=-1)

    @property
    def boxes(self) -> Int[Tensor, "b k sides"]:
        """The box around each mask: left, top, right and bottom, the last two exclusive, zeros where nothing is.

        On any number of axes, the first positions from the last axis to the first, then those one past the last.
        """
        axes = range(self.masks.ndim - 1, 1, -1)
        edges = [_edges(self.masks.movedim(axis, 2).unsqueeze(-1).flatten(3).any(dim=3)) for axis in axes]
        return torch.stack([first for first, _ in edges] + [past for _, past in edges], dim=-1)


def _edges(held: Bool[Tensor, "b k n"]) -> tuple[Int[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The first place that is held, and one past the last."""
    some, marks = held.any(dim=-1), held.to(torch.uint8)
    first, past = marks.argmax(dim=-1), held.shape[-1] - marks.flip(-1).argmax(dim=-1)
    return first.where(some, 0), past.where(some, 0)


class Segmenter(ABC):
    """Objects from the activations of one layer, with no label and no gradient.

    Each example is segmented on its own: nothing of it depends on the rest of the batch. The constructor is the
    configuration and takes no required argument.

    `reads` says what the last axis holds: a vector a position, or how much the class token attends to it in each head.
    """

    reads: ClassVar[Literal["vectors", "patterns"]] = "vectors"

    def __call__(self, acts: Float[Tensor, "b *grid d"]) -> Objects:
        """The objects.

        Args:
            acts: What the method reads of one layer, channels or heads last, prefix tokens and padding left out.

        Raises:
            ValueError: If a number is not finite.
        """
        if not bool(acts.isfinite().all()):
            broken = (~acts.flatten(1).isfinite().all(dim=1)).nonzero()[:, 0].tolist()
            raise ValueError(
                f"acts are not finite in examples {broken[:8]}, but {type(self).__name__} compares all positions: "
                "leave these examples out, or run the model in float32."
            )
        return self.segments(acts)

    @abstractmethod
    def segments(self, acts: Float[Tensor, "b *grid d"]) -> Objects:
        """The objects of activations that are finite."""


def alone(
    masks: Bool[Tensor, "b n"], saliency: Float[Tensor, "b n"], details: Mapping[str, Tensor], acts: Tensor
) -> Objects:
    """One object an example, from flat positions back on the grid and in the dtype of the activations."""
    grid = acts.shape[1:-1]
    numbers = {name: value[:, None].to(acts.dtype) for name, value in details.items()}
    return Objects(masks.view(len(acts), 1, *grid), saliency.view(len(acts), 1, *grid).to(acts.dtype), numbers)


def component(masks: Bool[Tensor, "b n"], seeds: Int[Tensor, " b"], grid: tuple[int, ...]) -> Bool[Tensor, "b n"]:
    """The part of each mask that its seed is joined to by steps to the next position along an axis.

    Args:
        masks: On flat positions.
        seeds: A position of each mask; where it lies outside, nothing is left.
        grid: Size of each axis.
    """
    within = masks.view(-1, *grid)
    held = torch.zeros_like(masks).scatter_(1, seeds[:, None], True).view_as(within) & within
    while True:
        wider = held.clone()
        for axis, size in enumerate(grid, 1):
            wider.narrow(axis, 1, size - 1).logical_or_(held.narrow(axis, 0, size - 1))
            wider.narrow(axis, 0, size - 1).logical_or_(held.narrow(axis, 1, size - 1))
        wider &= within
        if torch.equal(wider, held):
            return held.reshape(masks.shape)
        held = wider


def foremost(values: Float[Tensor, "*b n"]) -> Int[Tensor, "*b"]:
    """The first place of the largest value in the last axis; values that differ by rounding alone count as equal."""
    most = values.amax(dim=-1, keepdim=True)
    return (values >= most - 1e-9 * most.abs() - 1e-12).to(torch.uint8).argmax(dim=-1)
