"""Vision models of Hugging Face, read by plain hooks under the names that text models have."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.layouts.base import Layout, Size
from interp.models.layouts.convnext import convnext_layout
from interp.models.layouts.resnet import resnet_layout
from interp.models.layouts.swin import swin_layout
from interp.models.layouts.vit import vit_layout
from interp.models.torch_module import INPUT, TorchModel, of_input
from interp.preprocessing import Preprocessing
from interp.types import Geometry, Inputs, Place, Site

# Tried in order; each knows a kind of architecture and gives None for the others.
LAYOUTS = (vit_layout, swin_layout, convnext_layout, resnet_layout)


@dataclass(frozen=True)
class VisionOutput:
    """What a vision model returns.

    Args:
        hidden: The last hidden state: vectors of all positions, prefix tokens first, or a map.
        pooled: One vector an image.
        logits: What the head gives: scores of classes, or what a masked image is completed with; None without a
            trained head.
    """

    hidden: Float[Tensor, "b ..."]
    pooled: Float[Tensor, "b d"]
    logits: Float[Tensor, "b ..."] | None


def layout_of(module: nn.Module) -> Layout | None:
    """The layout of a vision model; None where none of `LAYOUTS` knows its architecture."""
    return next((layout for known in LAYOUTS if (layout := known(module))), None)


class VisionModel(TorchModel):
    """A vision model whose parts have TransformerLens' names; the paths of its own modules name them too.

    `blocks.3` is the output of that block and `blocks.3@in` its input; sites with `#heads` hold the heads one after
    the other in the last axis.

    Args:
        module: A loaded Hugging Face model; it is not copied, moved or changed.
        layout: Where its parts are; by default what `layout_of` finds.
        preprocessing: From pictures to its input.
        name: What manifests call it; by default the class.
        untrained: Names of weights that no checkpoint gave: left out of the fingerprint, and what they belong to
            (a pooler, a head) left out of the output.

    Raises:
        ValueError: If the architecture is none of those that are known.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        preprocessing: Preprocessing,
        layout: Layout | None = None,
        name: str | None = None,
        untrained: Sequence[str] = (),
    ) -> None:
        found = layout or layout_of(module)
        if found is None:
            raise ValueError(
                f"module is a {type(module).__name__}, whose layout is not known: read it by its own paths, "
                "interp.models.torch_module.TorchModel(module, geometry=...)."
            )
        super().__init__(module, name=name, parts=found.parts, aliases=found.aliases)
        self.layout, self.preprocessing = found, preprocessing
        self._config: Any = getattr(found.body, "config", None)
        body = next(path for path, part in module.named_modules() if part is found.body)
        self._untrained = frozenset(untrained)
        # Of the body, a checkpoint may lack its pooling, or the token of masked patches, of use in training only.
        own = {name for name in untrained if name.startswith(f"{body}." if body else "")}
        self._pools, self._has_head = all("mask_token" in name for name in own), self._untrained == own

    @property
    def fingerprint(self) -> str:
        """Hash of the weights as they are now."""
        state = self.module.state_dict()
        return self._weights.of({name: value for name, value in state.items() if name not in self._untrained})

    def collate(self, images: Sequence[Any]) -> Inputs:
        """One batch of pictures, preprocessed.

        Args:
            images: Pictures in any form that `Preprocessing` takes.
        """
        return Inputs({"pixel_values": self.preprocessing(images)})

    def geometry(self, site: Site, inputs: Inputs | None = None) -> Geometry:
        """How the positions of a site lie in the image: in images of the inputs' size, or as `collate` makes them."""
        size = self.preprocessing.size if inputs is None else _size(inputs)
        if site.module == INPUT:
            return of_input(inputs or Inputs({"pixel_values": torch.empty(1, 1, *size)}))
        return self.layout.geometry(self.site(site), size)

    def place(self, site: Site) -> Place:
        """Where a site is found while the model runs.

        Raises:
            ValueError: If the site is an attention pattern and the model runs an attention that shows none.
        """
        place, runs = super().place(site), getattr(self._config, "_attn_implementation", "eager")
        if site.module.endswith(".hook_pattern") and runs != "eager":
            raise ValueError(
                f"site is {site}, but {self.name} runs {runs} attention, which makes no pattern: "
                "load_model(..., attention='eager')."
            )
        return place

    def entered(self) -> nn.Module:
        """The body: it is given the pixels whether or not a head runs."""
        return self.layout.body

    def forward(self, inputs: Inputs) -> VisionOutput:
        """Run the model."""
        runner = self.module if self._has_head else self.layout.body
        weight = next(runner.parameters())
        tensors = {
            key: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for key, value in inputs.tensors.items()
        }
        caught: list[Any] = []
        handle = self.layout.body.register_forward_hook(lambda _m, _args, output: caught.append(output))
        try:
            with self.layout.running():
                # Pixels first: the site `input` is the first tensor given.
                pixels = tensors.pop("pixel_values")
                output = runner(**{"pixel_values": pixels} | self._options(pixels) | tensors)
        finally:
            handle.remove()
        return self._output(caught[0], output)

    def embedding(self, output: VisionOutput, inputs: Inputs) -> Float[Tensor, "b d"]:
        """One vector an image: what the model's own pooling gives where it has one that was trained, else the class
        token of the last hidden state, else the mean over positions."""
        return output.pooled

    def _output(self, body: Any, output: Any) -> VisionOutput:
        hidden = body.last_hidden_state
        pooled = getattr(body, "pooler_output", None) if self._pools else None
        pooled = self.layout.pooled(hidden) if pooled is None else pooled.flatten(1)
        return VisionOutput(hidden, pooled, getattr(output, "logits", getattr(output, "reconstruction", None)))

    def _options(self, pixels: Float[Tensor, "b c h w"]) -> dict[str, Any]:
        takes = inspect.signature(type(self.layout.body).forward).parameters
        options: dict[str, Any] = {}
        if "interpolate_pos_encoding" in takes and tuple(pixels.shape[2:]) != self.layout.input_size:
            options["interpolate_pos_encoding"] = True
        if "noise" in takes:
            # ViTMAE shuffles patches even where it masks none; noise that ascends leaves them in the image's order.
            n = math.prod(self.geometry(Site("embed"), Inputs({"pixel_values": pixels})).grid)
            options["noise"] = torch.arange(n, device=pixels.device).expand(len(pixels), -1)
        return options


def _size(inputs: Inputs) -> Size:
    height, width = inputs.tensors["pixel_values"].shape[2:]
    return height, width
