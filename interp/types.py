"""The records that flow from a model to an explanation; everything downstream stands on these."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a model where activations are read.

    Its canonical string is `module@io[index]#heads`, each part but the module left out at its default:
    `blocks.3`, `blocks.3@in`, `blocks.3.attn.hook_z#12`, `encoder.rnn@out[1]`.

    Args:
        module: Dotted path of the module, 0-based.
        io: Whether the module's output or its first input is read.
        heads: Attention heads concatenated in the last axis, where the site has heads.
        index: Which element, where the module returns a tuple.
    """

    module: str
    io: Literal["out", "in"] = "out"
    heads: int | None = None
    index: int = 0

    def __str__(self) -> str:
        io = f"@{self.io}" if self.io == "in" or self.index else ""
        return f"{self.module}{io}{f'[{self.index}]' if self.index else ''}{f'#{self.heads}' if self.heads else ''}"

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Read the canonical string back.

        Raises:
            ValueError: If the text is not of the form `module@io[index]#heads`.
        """
        if isinstance(text, Site):
            return text
        rest, _, heads = text.partition("#")
        module, _, io = rest.partition("@")
        io, _, index = io.partition("[")
        try:
            site = cls(module, io or "out", int(heads) if heads else None, int(index.rstrip("]")) if index else 0)  # type: ignore[arg-type]
        except ValueError:
            site = None
        if site is None or not module or site.io not in ("out", "in"):
            raise ValueError(
                f"site is {text!r}, but a site reads module@io[index]#heads with io 'in' or 'out', "
                "for example 'blocks.3', 'blocks.3@in' or 'blocks.3.attn.hook_z#12'."
            )
        return site


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the positions of one example are laid out.

    Args:
        kind: `sequence` (tokens, frames) or `grid` (image patches, feature maps).
        grid: Size of each grid axis; empty for sequences, whose length varies.
        prefix: Tokens before the grid or sequence proper (class token, registers); they count in `position`.
        stride: Input units (pixels, samples) between neighbouring positions, an axis each.
        patch: Input units one position covers, an axis each.
        input_size: Size of the model's input, an axis each.
    """

    kind: Literal["sequence", "grid"] = "sequence"
    grid: tuple[int, ...] = ()
    prefix: int = 0
    stride: tuple[int, ...] = ()
    patch: tuple[int, ...] = ()
    input_size: tuple[int, ...] = ()

    @property
    def positions(self) -> int | None:
        """Positions of one example, prefix counted; None where it varies."""
        return None if self.kind == "sequence" else self.prefix + functools.reduce(lambda a, b: a * b, self.grid, 1)

    def to_json(self) -> JSON:
        """Plain values, read back by `from_json`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: JSON) -> "Geometry":
        """Inverse of `to_json`."""
        plain: JSON = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)


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


class Latents:
    """Sparse codes of `n` rows, compressed by row (CSR). No stored zeros; autograd flows through `values`.

    Args:
        values: The codes that are not zero.
        indices: The feature of each code; within a row each feature at most once.
        offsets: Row i holds codes `offsets[i]` to `offsets[i + 1]`; None where every row holds `k`.
        d_sae: Number of features.
        k: Codes a row, where `offsets` is None.
    """

    def __init__(
        self,
        values: Float[Tensor, " nnz"],
        indices: Int[Tensor, " nnz"],
        offsets: Int[Tensor, " n_plus_1"] | None,
        d_sae: int,
        *,
        k: int | None = None,
    ) -> None:
        if (offsets is None) == (k is None):
            raise ValueError(
                "Latents takes either offsets or k: offsets for rows of any length, k for rows of one length."
            )
        self.values, self.indices, self.d_sae, self.k = values, indices, d_sae, k
        self._offsets = offsets

    def __len__(self) -> int:
        return self.indices.numel() // self.k if self.k else len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Latents(n={len(self)}, nnz={self.values.numel()}, d_sae={self.d_sae})"

    @functools.cached_property
    def offsets(self) -> Int[Tensor, " n_plus_1"]:
        """Where each row starts, and the end."""
        if self._offsets is not None:
            return self._offsets
        return torch.arange(0, self.indices.numel() + 1, self.k or 1, device=self.indices.device)

    @functools.cached_property
    def rows(self) -> Int[Tensor, " nnz"]:
        """The row of each code."""
        return torch.repeat_interleave(self.offsets.diff(), output_size=self.indices.numel())

    @functools.cached_property
    def by_feature(self) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " d_sae_plus_1"]]:
        """The order that sorts the codes by feature (rows ascending within one), and where each feature starts.

        Sorted once and kept: both weight gradients of an SAE and every per-feature statistic read it.
        """
        order = torch.argsort(self.indices, stable=True)
        offsets = torch.zeros(self.d_sae + 1, dtype=torch.long, device=self.indices.device)
        torch.cumsum(torch.bincount(self.indices, minlength=self.d_sae), 0, out=offsets[1:])
        return order, offsets

    def with_values(self, values: Float[Tensor, " nnz"]) -> "Latents":
        """The same support with other values; sorted orders already made are shared."""
        other = Latents(values, self.indices, self._offsets, self.d_sae, k=self.k)
        for name in ("offsets", "rows", "by_feature"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    def detach(self) -> "Latents":
        """The same codes, cut from autograd."""
        return self.with_values(self.values.detach())

    def __getitem__(self, rows: slice) -> "Latents":
        """A contiguous run of rows."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows has step {step}, but Latents are cut in contiguous runs: use step 1.")
        stop = max(start, stop)
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        if self.k:
            return Latents(self.values[low:high], self.indices[low:high], None, self.d_sae, k=self.k)
        return Latents(self.values[low:high], self.indices[low:high], self.offsets[start : stop + 1] - low, self.d_sae)

    def columns(self, features: Int[Tensor, " f"]) -> Float[Tensor, "n f"]:
        """Dense codes of a few features, one column each, in the order asked."""
        place = torch.full((self.d_sae,), -1, dtype=torch.long, device=self.indices.device)
        place[features] = torch.arange(len(features), device=self.indices.device)
        column = place[self.indices]
        hit = column >= 0
        dense = self.values.new_zeros(len(self), len(features))
        return dense.index_put((self.rows[hit], column[hit]), self.values[hit])

    def dense(self) -> Float[Tensor, "n d_sae"]:
        """All codes with their zeros. Costs n * d_sae: for small cases and tests."""
        dense = self.values.new_zeros(len(self), self.d_sae)
        return dense.index_put((self.rows, self.indices), self.values)

    @staticmethod
    def from_dense(codes: Float[Tensor, "n d_sae"]) -> "Latents":
        """Keep what is not zero."""
        rows, indices = codes.nonzero(as_tuple=True)
        return Latents.from_pairs(codes[rows, indices], rows, indices, codes.shape[0], codes.shape[1])

    @staticmethod
    def from_pairs(
        values: Float[Tensor, " nnz"], rows: Int[Tensor, " nnz"], indices: Int[Tensor, " nnz"], n: int, d_sae: int
    ) -> "Latents":
        """From (row, feature, value) triples whose rows ascend."""
        offsets = torch.zeros(n + 1, dtype=torch.long, device=indices.device)
        torch.cumsum(torch.bincount(rows, minlength=n), 0, out=offsets[1:])
        return Latents(values, indices, offsets, d_sae)


@dataclass(frozen=True)
class Item:
    """What the rows of one example were made from.

    Args:
        tokens: Token ids, one a position; None for images.
        pieces: What each token shows, white space kept, so that joining them shows the text.
        labels: Names given by the dataset (package, module, class, ...).
    """

    tokens: Int[Tensor, " p"] | None = None
    pieces: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


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

    def locate(self, site: Site) -> nn.Module:
        """The module whose input or output is read."""
        ...

    def geometry(self, site: Site) -> Geometry:
        """How the positions of a site are laid out."""
        ...

    def forward(self, inputs: Inputs) -> Any:
        """Run the model; what it returns is what scores and losses take."""
        ...
