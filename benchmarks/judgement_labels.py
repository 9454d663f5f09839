"""What codes are asked to tell in `judgement`: labels that the stores of the demo's two kinds carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from analyses.dictionary.token_classes import CLASS_KEY, TOKEN_CLASSES, Label, Said, token_columns
from interp.types import ActivationStore, Directions, Latents
from saes.metrics.base import plain
from saes.metrics.sparse_probing import SparseProbing, sparse_probing
from saes.probes.samples import Sample, gather

KS = (1, 4, 16, 64)
ALL = "all"
_SHARES = (0.4, 0.2, 0.4)  # More to test on than usual: intervals are over the examples of the test part.
_LEAST = 20  # Examples of a class; rarer ones are left out.
_ROWS = 10_000  # Tokens, where every token has a label of its own.
# By differences of means, features of large codes come first, by the other, any that tell: no side has the same best.
_SELECTIONS = ("mean_difference", "f_score")
# A token has the first of these classes that fits; other tokens are words.
_CLASSES = ("bracket", "punctuation", "digit", "upper case", "capitalised", "subword continuation")


@dataclass(frozen=True)
class Question:
    """One label, and the raw rows that bear it.

    Args:
        about: What is told apart, from what.
        raw: Labelled rows.
        pooled: Whether an example is one row, the mean of its rows' codes.
    """

    about: str
    raw: Sample
    pooled: bool

    def probed(self, directions: Directions | None, ks: tuple[int, ...] = KS) -> SparseProbing:
        """Probes on k codes of directions, chosen by the better rule at each k; None for the raw channels."""
        sample = self.raw if directions is None else self.raw.through(directions)
        if isinstance(sample.codes, Latents) and 2 * len(sample.codes.values) > len(sample) * sample.width:
            sample = replace(sample, codes=sample.codes.dense())  # Hardly sparse: read faster as it is.
        sample = sample.pooled() if self.pooled else sample
        return _better([sparse_probing(sample, ks, select=select) for select in _SELECTIONS])


def _better(found: Sequence[SparseProbing]) -> SparseProbing:
    """The best at each k, by the test rows: all sides gain alike by it, and little."""
    best = {k: max(found, key=lambda one: one.auroc[k].value) for k in found[0].auroc}
    parts = ("auroc", "accuracy", "per_class", "sums")
    chosen: list[Any] = [{k: getattr(one, part)[k] for k, one in best.items()} for part in parts]
    return SparseProbing(*[*chosen, found[0].example])


def questions(store: ActivationStore) -> dict[str, Question]:
    """The labels of a store of texts or of images."""
    if store.geometry.kind == "sequence":
        return {"token class": _token_class(store), "package": _of_items(store, "package", "texts", most=12)}
    # A character is in one part alone, in all its fonts.
    by_character = {"group": "character"}
    return {
        "category": _of_items(store, "category", "images", most=5, **by_character),
        "font": _of_items(store, "font", "images", most=12, **by_character),
    }


def _of_items(store: ActivationStore, key: str, kind: str, *, most: int, group: str | None = None) -> Question:
    """A label of the items, the most frequent of its values, by the mean of an item's codes."""
    values = [item.labels[key] for item in store.items]
    names, counts = np.unique(values, return_counts=True)
    frequent = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:most] if counts[i] >= _LEAST]
    raw = gather(store, key, classes=frequent, group=group, shares=_SHARES)
    about = f"which of {len(frequent)} an item is of, by the mean of its codes, {len(raw.example.unique())} {kind}"
    return Question(about, raw, pooled=True)


def _token_class(store: ActivationStore) -> Question:
    """A class of each token, by its codes."""
    said = Said(store.items, [])
    labels = [Label(CLASS_KEY, name) for name in TOKEN_CLASSES]
    addresses = [(batch.example, batch.position) for batch in store.batches(1 << 16, seed=None)]
    example, position = (torch.cat(part).numpy() for part in zip(*addresses, strict=True))
    columns = token_columns(said, labels, example, position)[:-1]
    found = np.full(len(example), len(_CLASSES))
    for place, name in reversed(list(enumerate(_CLASSES))):
        found[columns[list(TOKEN_CLASSES).index(name)] >= 0] = place
    names = (*_CLASSES, "word")
    raw = gather(store, torch.from_numpy(found), classes=names, shares=_SHARES, max_rows=_ROWS)
    return Question(f"which of {len(names)} a token is of, by its codes, {len(raw):,} tokens", raw, pooled=False)


@dataclass(frozen=True)
class Baselines:
    """What codes are compared with, at one question."""

    raw: SparseProbing
    pca: SparseProbing
    channels: SparseProbing

    @classmethod
    def of(cls, question: Question, pca: Directions) -> "Baselines":
        """Probes on the raw channels, on principal components, and one on all channels in the place of any k."""
        width = question.raw.width
        raw = question.probed(None, (*KS, width))
        channels = replace(raw, sums=dict.fromkeys(KS, raw.sums[width]))
        return cls(raw, question.probed(pca), channels)

    def beside(self, found: SparseProbing) -> Mapping[str, Mapping[str, Mapping[str, float | None]]]:
        """The AUROC at each k, and what it is above the same on fewer or other directions, with paired intervals."""
        above = {f"above {name}": found.above(other) for name, other in vars(self).items()}
        return plain({"auroc": found.auroc, **above})
