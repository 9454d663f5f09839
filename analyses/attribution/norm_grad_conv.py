"""NormGrad of a real layer (Rebuffi et al. 2020, https://arxiv.org/abs/2004.02866)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.layers import on_grid
from analyses.passes import Examples
from analyses.running import Runner
from analyses.weight_terms import AGGREGATES, Aggregate, Sums, Windows, aggregated
from interp.models.base import hook
from interp.types import Place

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SUMS = (functional.conv1d, functional.conv2d, functional.conv3d)
_LARGEST = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)


@dataclass(frozen=True)
class NormGradConv(ModelMethod):
    """At each position of a convolution's output, the size of its part in the gradient of the layer's own weights.

    The site is the output of a convolution or of a linear layer. A part is the outer product of the gradient there with
    what the kernel sees of the layer's input; its norm is the product of both norms (by groups, where the channels are
    grouped). No outer product and no window is ever written out. The bias is left out. For the identity layers that
    other sites need there is NormGrad.

    Args:
        aggregate: What is made of a part: its Euclidean norm, that of its positive entries, its sum or its largest
            entry.

    Raises:
        ValueError: If there is no such aggregate; in use, if the site is not such an output, or the layer does not run
            as its kernel says.
    """

    aggregate: Aggregate = "norm"

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise ValueError(
                f"aggregate is {self.aggregate!r}, but NormGradConv knows {', '.join(AGGREGATES)}: choose one."
            )

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps."""
        layer = _layer(runner)
        found = []
        for chunk in runner.examples.chunks(runner.batch_size):
            given, grads = _around(runner, chunk, layer)
            windows = _Tokens(runner, given) if isinstance(layer, nn.Linear) else _Strided(layer, given)
            if windows.sums(windows.acts).shape[:-1] != grads.shape[:-1]:
                raise ValueError(
                    f"{runner.site} has positions {list(grads.shape[1:-1])}, but its kernel, stride and padding make "
                    f"{list(windows.sums(windows.acts).shape[1:-1])} of its input: it does more than a plain "
                    f"{type(layer).__name__}. Choose NormGrad."
                )
            found.append(aggregated(grads, windows, self.aggregate))
        return torch.cat(found), {}


def _layer(runner: Runner) -> Any:
    """The convolution or linear layer whose output the site is."""
    place = runner.scorer.model.place(runner.site)
    known = isinstance(place.module, (*_CONVOLUTIONS, nn.Linear))
    if not known or place.io != "out" or place.read is not None:
        what = "input" if place.io == "in" else "output" if place.read is None else "part"
        raise ValueError(
            f"{runner.site} is the {what} of a {type(place.module).__name__}, but NormGradConv is made from the output "
            "of an nn.Conv1d, nn.Conv2d, nn.Conv3d or nn.Linear: choose such a site, or NormGrad for this one."
        )
    return place.module


def _around(runner: Runner, chunk: Examples, layer: nn.Module) -> tuple[Tensor, Float[Tensor, "b *grid d"]]:
    """What the layer was given the first time, and the gradient of its output, channels last."""
    given = _First()
    handle = hook(Place(layer, "in"), given, runner.site)
    try:
        found = runner.scorer.run(chunk, [runner.site])
    finally:
        handle.remove()
    assert given.value is not None
    return given.value, runner.vectors(found.grads[runner.site])


class _First:
    """A hook that keeps the first value that it is shown."""

    value: Tensor | None = None

    def __call__(self, value: Tensor) -> None:
        if self.value is None:
            # A copy: what the model does in place later must not reach it.
            self.value = value.detach().clone()


class _Tokens(Windows):
    """One position of a linear layer's input, shared by all outputs."""

    def __init__(self, runner: Runner, given: Tensor) -> None:
        self.acts = on_grid(given, runner.geometry, runner.site)

    def sums(self, values: Tensor) -> Sums:
        return values.sum(dim=-1, keepdim=True)

    def largest(self, sign: int) -> Sums:
        return sign * (sign * self.acts).amax(dim=-1, keepdim=True)


class _Strided(Windows):
    """What a convolution's kernel sees of its padded input, shared by the outputs of each group."""

    def __init__(self, layer: Any, given: Tensor) -> None:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self.acts = functional.pad(given, _padding(layer), mode=mode)
        self._layer, self._axes = layer, len(layer.kernel_size)

    def sums(self, values: Tensor) -> Sums:
        layer = self._layer
        by_group = values.unflatten(1, (layer.groups, -1)).sum(dim=2)
        ones = values.new_ones(layer.groups, 1, *layer.kernel_size)
        convolve = _SUMS[self._axes - 1]
        return self._of_outputs(
            convolve(by_group, ones, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)
        )

    def largest(self, sign: int) -> Sums:
        layer = self._layer
        by_group = (sign * self.acts).unflatten(1, (layer.groups, -1)).amax(dim=2)
        pool = _LARGEST[self._axes - 1]
        return sign * self._of_outputs(pool(by_group, layer.kernel_size, layer.stride, dilation=layer.dilation))

    def _of_outputs(self, by_group: Float[Tensor, "b g *grid"]) -> Sums:
        return by_group.repeat_interleave(self._layer.out_channels // self._layer.groups, dim=1).movedim(1, -1)


def _padding(layer: Any) -> list[int]:
    """Positions that are added before and after each axis, the last axis first, as `functional.pad` takes them."""
    sizes: list[int] = []
    for axis, (kernel, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        if layer.padding == "same":
            whole = dilation * (kernel - 1)
            before, after = whole // 2, whole - whole // 2
        else:
            before = after = 0 if layer.padding == "valid" else layer.padding[axis]
        sizes[:0] = [before, after]
    return sizes
