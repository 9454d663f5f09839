"""The records that flow from a model to an explanation; everything downstream stands on these."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from interp.latents import Latents
from interp.sites import Geometry, Place, Site

__all__ = [
    "JSON",
    "ActivationStore",
    "Activations",
    "Directions",
    "Geometry",
    "Inputs",
    "Item",
    "Latents",
    "Model",
    "Place",
    "Site",
]

JSON = dict[str, Any]


@dataclass(frozen=True)
class Activations:
    """Rows of activations, each with its address. A text token and an image patch are the same record.

    Args:
        values: The activations.
        example: Index of the dataset's item each row comes from.
        position: Position inside the item, prefix tokens counted.
        grads: Gradient of a loss at each row, where it was asked for.
        target: What each row should predict (transcoders); None for the row itself.
    """

    values: Float[Tensor, "n d_in"]
    example: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    grads: Float[Tensor, "n d_in"] | None = None
    target: Float[Tensor, "n d_out"] | None = None

    def __post_init__(self) -> None:
        for name in ("example", "position", "grads", "target"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self.values):
                raise ValueError(
                    f"{name} has {len(part)} rows, but values has {len(self.values)}: one {name} a row is needed."
                )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> "Activations":
        """The chosen rows (a slice, a mask or indices), as views where torch gives views."""
        return self._map(lambda part: part[rows])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Activations":
        """Move to a device; `dtype` applies to the vectors, never to the addresses."""
        return self._map(lambda part: part.to(device, dtype if part.is_floating_point() else None))

    def _map(self, change: Any) -> "Activations":
        parts = (self.values, self.example, self.position, self.grads, self.target)
        changed: list[Any] = [None if part is None else change(part) for part in parts]
        return Activations(*changed)

    @staticmethod
    def concatenate(parts: Sequence["Activations"]) -> "Activations":
        """Rows of all parts, in order; optional fields must be in all of them or in none."""
        columns = zip(*((p.values, p.example, p.position, p.grads, p.target) for p in parts), strict=True)
        joined: list[Any] = [None if column[0] is None else torch.cat(column) for column in columns]
        return Activations(*joined)


@dataclass(frozen=True)
class Item:
    """What the rows of one example were made from.

    Args:
        tokens: Token ids, one a position; None for images.
        pieces: What each token shows, white space kept, so that joining them shows the text.
        labels: Names given by the dataset (package, module, class, ...).
        image: What a vision model saw, resized and cropped, perhaps smaller; None for texts.
    """

    tokens: Int[Tensor, " p"] | None = None
    pieces: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    image: UInt8[Tensor, "h w c"] | None = None


@runtime_checkable
class ActivationStore(Protocol):
    """Rows of activations of one site, addressable by example, shuffled on the way out.

    `fingerprint` names the content: equal fingerprints, equal rows. `provenance` says where the rows come from
    (model and dataset ids and hashes, token counts, what was left out) in plain JSON values.
    """

    site: Site
    d_in: int
    geometry: Geometry
    items: Sequence[Item]
    fingerprint: str
    provenance: JSON

    def __len__(self) -> int: ...

    def batches(
        self, size: int, *, seed: int | None, start_step: int = 0, epochs: int | None = None
    ) -> Iterator[Activations]:
        """Yield batches: in stored order where `seed` is None (one epoch by default, the last batch may be short),
        else in a global shuffle that is a function of (seed, epoch, step) and goes on for ever by default."""
        ...

    def example(self, index: int) -> Activations:
        """All rows of one example, in order of position."""
        ...


@runtime_checkable
class Directions(Protocol):
    """Named directions in activation space: an SAE, a probe, a PCA, the raw channels.

    `signed` says whether codes can be negative, `trainable` whether an optimizer may move them. `labels` names
    features by index. `provenance` says what they were made from (site, model and data hashes).
    """

    d_in: int
    d_sae: int
    signed: bool
    trainable: bool
    site: Site | None
    labels: Mapping[int, str]
    provenance: JSON

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_in"]:
        """The direction each feature writes."""
        ...

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"] | None:
        """The direction each feature reads; None where encoding is not linear."""
        ...

    def encode(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """Sparse codes of activations in the model's units."""
        ...

    def decode(self, latents: Latents) -> Float[Tensor, "n d_in"]:
        """Activations of sparse codes."""
        ...


@dataclass(frozen=True)
class Inputs:
    """One batch, ready for a model.

    Args:
        tensors: Keyword arguments of the forward pass (`input_ids` and `attention_mask`, `pixel_values`, ...).
        mask: True where a position holds data rather than padding; None where all do.
    """

    tensors: Mapping[str, Tensor]
    mask: Bool[Tensor, "b p"] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))


class Model(Protocol):
    """What the rest of the house asks of a model, whatever its library.

    `name` and `fingerprint` go into manifests: an id without a local path, and a hash of the weights.
    """

    name: str
    fingerprint: str
    module: nn.Module

    def site(self, name: str | Site) -> Site:
        """The canonical site of a name or alias; an unknown one raises ValueError with the nearest names."""
        ...

    def sites(self) -> list[str]:
        """Every name that `site` takes."""
        ...

    def place(self, site: Site) -> Place:
        """Where a site is found while the model runs."""
        ...

    def geometry(self, site: Site, inputs: Inputs | None = None) -> Geometry:
        """How the positions of a site are laid out: for these inputs, or for those of the size it was made for."""
        ...

    def forward(self, inputs: Inputs) -> Any:
        """Run the model; what it returns is what scores and losses take."""
        ...
