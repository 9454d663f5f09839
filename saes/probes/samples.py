"""Labelled rows as probes see them: raw or sparse codes, split by example into train, validation and test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.stores.shuffling import counter_key, shuffled
from interp.types import JSON, ActivationStore, Directions, Latents, Site
from saes.metrics.base import evaluating

Part = Literal["train", "validation", "test"]

_PARTS: tuple[Part, ...] = ("train", "validation", "test")
_PURPOSE = 0x5B11


@dataclass(frozen=True)
class Sample:
    """Labelled rows.

    Args:
        codes: What probes read: latents, or the rows themselves.
        labels: Class of each row, from 0.
        classes: Name of each class.
        example: Index of the store's item each row comes from.
        part: 0 to fit on, 1 to choose on, 2 to test on.
        directions: What made the latents; None for raw rows.
        site: Where the rows were read.
        provenance: What the sample is a function of.
    """

    codes: Latents | Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    example: Int[Tensor, " n"]
    part: Int[Tensor, " n"]
    directions: Directions | None
    site: Site
    provenance: JSON

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """Features a probe can read."""
        return self.codes.d_sae if isinstance(self.codes, Latents) else self.codes.shape[1]

    def only(self, *parts: Part) -> "Sample":
        """The rows of some parts, in order."""
        kept = torch.isin(self.part, torch.tensor([_PARTS.index(part) for part in parts]))
        return replace(
            self,
            codes=taken(self.codes, kept),
            labels=self.labels[kept],
            example=self.example[kept],
            part=self.part[kept],
        )

    def versus_rest(self, name: str) -> "Sample":
        """The same rows with two classes: `rest`, 0, and the one named, 1."""
        if name not in self.classes:
            raise ValueError(f"name is {name!r}, but the classes are {', '.join(self.classes)}: choose one of these.")
        return replace(self, labels=(self.labels == self.classes.index(name)).long(), classes=("rest", name))

    @torch.no_grad()
    def through(self, directions: Directions, *, batch_size: int = 4096) -> "Sample":
        """The latents of raw rows; of latents it raises ValueError."""
        if not isinstance(self.codes, Tensor):
            raise ValueError("the sample holds latents, but a dictionary reads rows: sample without directions= first.")
        with evaluating(directions):
            rows = (part.to(directions.W_dec) for part in self.codes.split(batch_size))
            codes = joined([directions.encode(part) for part in rows])
        about = {**self.provenance, "directions": dict(directions.provenance)}
        return replace(self, codes=codes, directions=directions, provenance=about)

    def pooled(self) -> "Sample":
        """One row an example: the mean of its codes, with the label of its first row."""
        found, of, counts = torch.unique(self.example, return_inverse=True, return_counts=True)
        first = torch.searchsorted(of, torch.arange(len(found)))  # Stored order: rows of an example are together.
        codes: Latents | Tensor
        if isinstance(self.codes, Latents):
            d = self.codes.d_sae
            pairs, place = torch.unique(of[self.codes.rows] * d + self.codes.indices, return_inverse=True)
            values = torch.zeros(len(pairs)).index_add_(0, place, self.codes.values) / counts[pairs // d]
            codes = Latents.from_pairs(values, pairs // d, pairs % d, len(found), d)
        else:
            codes = torch.zeros(len(found), self.width).index_add_(0, of, self.codes) / counts[:, None]
        return replace(self, codes=codes, labels=self.labels[first], example=found, part=self.part[first])


@torch.no_grad()
def gather(
    store: ActivationStore,
    labels: str | Int[Tensor, " some"],
    *,
    directions: Directions | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    max_rows: int | None = None,
    batch_size: int = 4096,
) -> Sample:
    """Read labelled rows into memory; latents stay sparse.

    Args:
        store: Where the rows are.
        labels: A label of the store's items by name, or classes from 0, one an item or one a row; items without the
            label, and negative classes, are left out.
        directions: What encodes the rows; None to probe the rows themselves.
        group: Another label of the items, whose values are never split between parts; None where examples are.
        classes: Names to keep (by default all, sorted); rows of others are left out.
        shares: Parts of the groups to fit on, to choose on and to test on.
        seed: Names the split.
        max_rows: At most so many rows, evenly spaced; None for all.
        batch_size: Rows encoded at a time.

    Raises:
        ValueError: If there is no such label, there are too few groups or classes, or a part lacks a class.
    """
    names, numbers = _labels(store, labels, classes)
    by_row = len(numbers) != len(store.items)
    parts = split(_numbered(_values(store, group), None)[1] if group else torch.arange(len(store.items)), shares, seed)
    step = 1 if max_rows is None else -(-len(store) // max_rows)
    codes: list[Latents | Tensor] = []
    kept: list[tuple[Tensor, Tensor]] = []
    start = 0
    with evaluating(directions):
        for batch in store.batches(batch_size, seed=None):
            found = numbers[start : start + len(batch)] if by_row else numbers[batch.example]
            chosen = (found >= 0) & (parts[batch.example] >= 0)
            chosen &= torch.arange(start, start + len(batch)) % step == 0
            start += len(batch)
            values = batch.values[chosen]
            codes.append(values.float() if directions is None else directions.encode(values.to(directions.W_dec)))
            kept.append((found[chosen], batch.example[chosen]))
    provenance = {
        "store": store.fingerprint,
        "label": labels if isinstance(labels, str) else None,
        "split": {"group": group, "shares": list(shares), "seed": seed},
        "directions": None if directions is None else dict(directions.provenance),
    }
    of_rows, example = map(torch.cat, zip(*kept, strict=True))
    sample = Sample(joined(codes), of_rows, names, example, parts[example], directions, store.site, provenance)
    return _checked(sample)


def split(
    groups: Int[Tensor, " e"], shares: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0
) -> Int[Tensor, " e"]:
    """The part of each example, 0 train, 1 validation, 2 test: whole groups, by a permutation that the seed names.

    Args:
        groups: Group of each example, from 0; negative ones are put in no part (-1).
        shares: Of the groups; they sum to 1.
        seed: Names the permutation.

    Raises:
        ValueError: If the shares do not sum to 1, or there are fewer than three groups.
    """
    n = int(groups.max()) + 1 if len(groups) else 0
    if n < 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"shares are {shares} of {n} groups, but each of three parts needs at least one group and the shares sum "
            "to 1: give more examples, or another group."
        )
    ends = np.clip(np.round(np.cumsum(shares)[:2] * n).astype(int), [1, 2], [n - 2, n - 1])
    order = shuffled(np.arange(n), n, seed=int(counter_key(seed, _PURPOSE)), epoch=0)
    part = torch.empty(n, dtype=torch.long)
    part[torch.from_numpy(order)] = torch.from_numpy(np.searchsorted(ends, np.arange(n), side="right"))
    return torch.where(groups >= 0, part[groups], -1)


def taken(codes: Latents | Float[Tensor, "n d"], kept: Bool[Tensor, " n"]) -> Latents | Float[Tensor, "m d"]:
    """Some rows, in order."""
    if isinstance(codes, Tensor):
        return codes[kept]
    of_kept = kept[codes.rows]
    rows = (kept.cumsum(0) - 1)[codes.rows[of_kept]]
    return Latents.from_pairs(codes.values[of_kept], rows, codes.indices[of_kept], int(kept.sum()), codes.d_sae)


def joined(parts: Sequence[Latents | Tensor]) -> Latents | Float[Tensor, "n d"]:
    """Rows of all parts, on the CPU."""
    dense = [part for part in parts if isinstance(part, Tensor)]
    if dense:
        return torch.cat(dense).cpu()
    sparse = [part for part in parts if isinstance(part, Latents)]
    counts = torch.cat([part.offsets.diff() for part in sparse]).cpu()
    offsets = F.pad(counts.cumsum(0), (1, 0))
    values, indices = (torch.cat([getattr(part, name) for part in sparse]).cpu() for name in ("values", "indices"))
    return Latents(values.float(), indices, offsets, sparse[0].d_sae)


def _values(store: ActivationStore, key: str) -> list[str | None]:
    values = [item.labels.get(key) for item in store.items]
    if not any(value is not None for value in values):
        known = sorted({name for item in store.items for name in item.labels})
        raise ValueError(
            f"no item of the store has the label {key!r}: it has {', '.join(known) or 'none'}; give one of these, or "
            "classes as a tensor."
        )
    return values


def _numbered(values: Sequence[str | None], names: Sequence[str] | None) -> tuple[tuple[str, ...], Int[Tensor, " e"]]:
    """The distinct values, and the place of each among them; -1 where there is none."""
    names = tuple(sorted({value for value in values if value is not None}) if names is None else names)
    places: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    return names, torch.tensor([places.get(value, -1) for value in values])


def _labels(
    store: ActivationStore, labels: str | Int[Tensor, " some"], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], Int[Tensor, " some"]]:
    """Names of the classes, and the class of each item or row."""
    if isinstance(labels, str):
        return _numbered(_values(store, labels), classes)
    if len(labels) not in (len(store.items), len(store)):
        raise ValueError(
            f"labels are {len(labels)}, but the store has {len(store.items)} items and {len(store)} rows: give one "
            "for each of either."
        )
    names = tuple(str(i) for i in range(int(labels.max()) + 1)) if classes is None else tuple(classes)
    return names, torch.where(labels < len(names), labels.long(), -1)


def _checked(sample: Sample) -> Sample:
    if len(sample.classes) < 2:
        raise ValueError(f"classes are {sample.classes}, but a probe tells at least two apart: give more.")
    for number, part in enumerate(_PARTS):
        seen = set(sample.labels[sample.part == number].tolist())
        missing = [name for place, name in enumerate(sample.classes) if place not in seen]
        if missing:
            raise ValueError(
                f"classes {', '.join(missing[:5])} never occur among the {part} rows: leave rare ones out by classes=, "
                "split by another group, or give more examples."
            )
    return sample
