"""What every self-supervised objective is."""

import importlib
import itertools
import pkgutil
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp import pretrain as _folder
from interp.models.glyph_encoders import GlyphEncoder
from interp.types import JSON


class Objective(nn.Module):
    """A loss over views of images, with the head it needs on top of an encoder.

    The constructor takes the encoder, for its widths, and the method's own arguments, plain JSON values.
    """

    views: ClassVar[int]
    """Views of each code point that a batch holds."""
    arguments: JSON
    """The method's own arguments."""

    def loss(
        self, encoder: GlyphEncoder, batch: Float[Tensor, "v b 1 s s"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The loss of one batch, a mean over it.

        Args:
            encoder: What is trained.
            batch: Views, 0 to 1; `batch[0, i]` and `batch[1, i]` show one code point.
            generator: For what the objective draws.
        """
        raise NotImplementedError

    def projected(self, pooled: Float[Tensor, "b d_pooled"]) -> list[Float[Tensor, "b d_layer"]]:
        """Outputs of each layer of the head on pooled embeddings; none where it takes maps."""
        return []


class TwoViews(Objective):
    """An objective that compares two views by a projection head on pooled embeddings; a subclass gives `compared`."""

    views = 2

    def __init__(self, encoder: GlyphEncoder, *, d_hidden: int, d_out: int, layers: int, **arguments: Any) -> None:
        super().__init__()
        self.arguments = {"d_hidden": d_hidden, "d_out": d_out, "layers": layers, **arguments}
        self.head = mlp(encoder.d_pooled, d_hidden, d_out, layers)

    def compared(self, first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
        """The loss of the two views' projections."""
        raise NotImplementedError

    def projected(self, pooled: Float[Tensor, "b d_pooled"]) -> list[Float[Tensor, "b d_layer"]]:
        """Outputs of each layer of the head."""
        return layerwise(self.head, pooled)

    def loss(
        self, encoder: GlyphEncoder, batch: Float[Tensor, "2 b 1 s s"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """`compared` on the two views of each code point."""
        return self.compared(*self.projected(encoder(batch.flatten(0, 1)).pooled)[-1].chunk(2))


def objectives() -> dict[str, type[Objective]]:
    """Name and class of each objective: the modules of this folder that define one."""
    found = {}
    for module in pkgutil.iter_modules(_folder.__path__):
        if module.name == "base":
            continue
        for value in vars(importlib.import_module(f"{_folder.__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Objective) and value.__module__.endswith(module.name):
                found[module.name] = value
    return found


def mlp(d_in: int, d_hidden: int, d_out: int, layers: int) -> nn.ModuleList:
    """The projection head of Barlow Twins and SimCLR: linear layers, each but the last with batch norm and ReLU."""
    widths = [d_in, *[d_hidden] * (layers - 1)]
    hidden = [
        nn.Sequential(nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()) for i, o in itertools.pairwise(widths)
    ]
    return nn.ModuleList([*hidden, nn.Linear(d_hidden, d_out, bias=False)])


def layerwise(head: nn.ModuleList, pooled: Float[Tensor, "b d_pooled"]) -> list[Float[Tensor, "b d_layer"]]:
    """Outputs of each layer of a head."""
    outputs = []
    for layer in head:
        pooled = layer(pooled)
        outputs.append(pooled)
    return outputs
