"""Labels for features: what name is borne by the tokens or items where a feature fires, judged by AUROC.

Choose on one store, report on another: `best_labels` looks for candidates, `evaluate_labels` scores them on rows that
had no part in the choice.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary.encoding import encoded_batches, evaluating, whole_batches
from analyses.dictionary.ranking import Scores, Standings
from analyses.dictionary.token_classes import Label, Said, item_columns, possible_labels, token_columns
from interp.types import ActivationStore, Directions

_CHUNK_CELLS = 1 << 22


@dataclass(frozen=True)
class Candidates:
    """The labels that fit each feature best.

    Args:
        labels: All labels looked at.
        choice: Indices into `labels`, best first, [d_sae, candidates]; -1 where there are fewer.
        auroc: How well the feature's activation tells the label; NaN where it cannot be said.
    """

    labels: list[Label]
    choice: NDArray[np.int64]
    auroc: NDArray[np.float64]

    def best(self, at_least: float = 0.0) -> dict[int, tuple[str, float]]:
        """The first candidate of each feature and its AUROC, where that is high enough: what a bundle's `label` takes.

        Args:
            at_least: Lowest AUROC, in 0..1.
        """
        fitting = np.flatnonzero((self.choice[:, 0] >= 0) & (self.auroc[:, 0] >= at_least))
        return {int(f): (str(self.labels[self.choice[f, 0]]), float(self.auroc[f, 0])) for f in fitting}


def best_labels(
    directions: Directions,
    store: ActivationStore,
    labels: Sequence[str] = (),
    *,
    tokens: int = 512,
    candidates: int = 3,
    min_count: int = 20,
    batch_rows: int = 4096,
    max_rows: int | None = None,
) -> Candidates:
    """The labels each feature tells best: labels of items (by its largest activation there) and of tokens.

    Every label is first ranked by a one-point ROC curve (firing at all, or above the feature's mean); the exact AUROC
    is worked out for the best `candidates` of items and of tokens. Memory is 12 bytes a code, which `max_rows` bounds,
    and 4 bytes a token of the store.

    Args:
        directions: The features.
        store: What to choose on.
        labels: Keys of the items' labels.
        tokens: How many of the most frequent tokens are labels themselves; token classes always are.
        candidates: Candidates a feature.
        min_count: Firings a feature needs, and rows or items with and without a label.
        batch_rows: Rows at once.
        max_rows: First rows to look at, rounded up to a batch; None for all.

    Raises:
        ValueError: If no item bears one of the keys, or a number is out of range.
    """
    if candidates < 1 or min_count < 1:
        raise ValueError(f"candidates is {candidates} and min_count {min_count}, but both are at least 1.")
    said = Said(store.items, labels)
    names = possible_labels(said, tokens, min_count)
    found = []
    for scores, columns in _levels(directions, store, said, names, batch_rows, max_rows):
        choice = _promising(scores, columns, len(names), candidates, min_count)
        found.append((choice, _exact(scores, columns, choice, len(names))))
    choice, area = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    order = np.argsort(np.where(np.isnan(area), np.inf, -area), axis=1, kind="stable")[:, :candidates]
    return Candidates(names, np.take_along_axis(choice, order, 1), np.take_along_axis(area, order, 1))


def evaluate_labels(
    directions: Directions,
    store: ActivationStore,
    candidates: Candidates,
    *,
    min_count: int = 10,
    batch_rows: int = 4096,
) -> Candidates:
    """The same candidates in the same order, with their AUROC on another store.

    Args:
        directions: The features.
        store: Rows that had no part in the choice.
        candidates: From `best_labels`.
        min_count: Rows or items that must bear a label, and lack it: the AUROC of two items is near 1 by chance. NaN
            below that.
        batch_rows: Rows at once.
    """
    said = Said(store.items, sorted({label.key for label in candidates.labels if label.of_items}))
    area = np.full(candidates.choice.shape, np.nan)
    for scores, columns in _levels(directions, store, said, candidates.labels, batch_rows):
        here = _exact(scores, columns, candidates.choice, len(candidates.labels))
        bearing = _bearing(columns, len(candidates.labels))
        enough = (bearing >= min_count) & (scores.n - bearing >= min_count)
        here[~enough[candidates.choice]] = np.nan
        area = np.where(np.isnan(area), here, area)
    return replace(candidates, auroc=area)


def _levels(
    directions: Directions,
    store: ActivationStore,
    said: Said,
    labels: list[Label],
    batch_rows: int,
    max_rows: int | None = None,
) -> list[tuple[Scores, NDArray[np.int32]]]:
    """Scores and label columns, of items and of tokens."""
    with evaluating(directions):
        size = whole_batches(batch_rows)
        wanted = None if max_rows is None else -(-max_rows // size)
        batches = list(itertools.islice(encoded_batches(directions, store, size), wanted))
    example, position = (np.concatenate([getattr(b, name) for b in batches]) for name in ("example", "position"))
    first = np.cumsum([0, *(len(batch) for batch in batches)])
    rows = np.concatenate([(batch.rows + start).astype(np.int32) for batch, start in zip(batches, first, strict=False)])
    values, features = (np.concatenate([getattr(b, name) for b in batches]) for name in ("values", "features"))
    scores = Scores.collect(values, features, rows, len(example), directions.d_sae)
    # Items without a row say nothing: those that have some are counted anew.
    present, item = np.unique(example, return_inverse=True)
    items = scores.largest_by(item, len(present))
    return [
        (items, item_columns(said, labels)[:, present]),
        (scores, token_columns(said, labels, example, position)),
    ]


def _promising(
    scores: Scores, columns: NDArray[np.int32], labels: int, candidates: int, min_count: int
) -> NDArray[np.int64]:
    """The labels whose one-point ROC curve is best for each feature; -1 where there are none."""
    chosen = np.full((scores.d_sae, candidates), -1, np.int64)
    bearing = _bearing(columns, labels)
    usable = np.flatnonzero((bearing >= min_count) & (scores.n - bearing >= min_count))
    if not len(usable):
        return chosen
    here, away = bearing[usable], scores.n - bearing[usable]
    step = max(1, _CHUNK_CELLS // labels)
    for first in range(0, scores.d_sae, step):
        last = min(first + step, scores.d_sae)
        size = last - first
        values, rows, feature = scores.chunk(first, last)
        fires = np.bincount(feature, minlength=size)
        mean = np.bincount(feature, values, minlength=size) / np.maximum(fires, 1)
        # Groups from `size` on are of the scores above the mean, which count among those above zero as well.
        above = values > 0
        group = feature[above] + size * (values > np.maximum(mean, 0)[feature])[above]
        together = _together(group, rows[above], columns, 2 * size, labels)[:, usable].reshape(2, size, -1)
        total = np.bincount(group, minlength=2 * size).reshape(2, size, 1)
        together[0] += together[1]
        total[0] += total[1]
        gain = (together / here - (total - together) / away).max(axis=0)
        best = np.argsort(-gain, axis=1, kind="stable")[:, :candidates]
        chosen[first:last, : best.shape[1]] = np.where(fires[:, None] >= min_count, usable[best], -1)
    return chosen


def _exact(scores: Scores, columns: NDArray[np.int32], choice: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """AUROC of each chosen label that these columns know."""
    area = np.full(choice.shape, np.nan)
    if not len(columns) or not labels:
        return area
    bearing = _bearing(columns, labels)
    line_of = np.full(labels, -1)
    for line, column in enumerate(columns):
        line_of[np.unique(column[column >= 0])] = line
    step = max(1, _CHUNK_CELLS // max(1, len(scores.values) // max(scores.d_sae, 1)))
    for first in range(0, scores.d_sae, step):
        last = min(first + step, scores.d_sae)
        values, rows, feature = scores.chunk(first, last)
        standings = Standings.of(values, feature, np.full(last - first, scores.n))
        for place in range(choice.shape[1]):
            label = choice[first:last, place]
            known = (label >= 0) & (line_of[label] >= 0)
            sought = np.where(known, label, -2)  # No row has that in its columns.
            positive = columns[line_of[label][feature], rows] == sought[feature]
            positives = np.where(known, bearing[label], 0)
            area[first:last, place] = standings.auroc(positive, positives, scores.n - positives)
    return area


def _bearing(columns: NDArray[np.int32], labels: int) -> NDArray[np.int64]:
    """Rows that bear each label."""
    return np.bincount(columns[columns >= 0], minlength=labels)


def _together(
    group: NDArray[np.int64], rows: NDArray[np.int32], columns: NDArray[np.int32], groups: int, labels: int
) -> NDArray[np.int64]:
    """How often each group of scores has a row that bears each label, [groups, labels]."""
    cells = group * (labels + 1) + 1  # The first cell of a group is for rows that bear none.
    counts = np.zeros(groups * (labels + 1), np.int64)
    for column in columns:
        counts += np.bincount(cells + column[rows], minlength=len(counts))
    return counts.reshape(groups, labels + 1)[:, 1:]
