"""AUROC of sparse scores (Hanley and McNeil 1982): only the active values are sorted, zeros are counted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Sparse scores of many features over the same rows, sorted by feature.

    Args:
        values: Scores that are not zero.
        rows: The row of each.
        offsets: Feature f holds scores `offsets[f]` to `offsets[f + 1]`.
        n: Number of rows.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]
    n: int

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return len(self.offsets) - 1

    def chunk(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
        """Values, rows and features (counted from `first`) of a run of features."""
        begin, end = self.offsets[first], self.offsets[last]
        feature = np.repeat(np.arange(last - first), np.diff(self.offsets[first : last + 1]))
        return self.values[begin:end], self.rows[begin:end], feature

    @classmethod
    def collect(
        cls, values: NDArray[np.float32], features: NDArray[np.integer], rows: NDArray[np.integer], n: int, d_sae: int
    ) -> "Scores":
        """Sort (feature, row, value) triples, whose rows ascend, by feature."""
        order = np.argsort(features.astype(np.uint16) if d_sae < 1 << 16 else features, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(features, minlength=d_sae))])
        return cls(values[order], rows[order].astype(np.int32), offsets, n)

    def largest_by(self, group: NDArray[np.int64], groups: int) -> "Scores":
        """Each feature's largest score over the rows of each group, zeros counted.

        Args:
            group: Group of each row, ascending.
            groups: Number of groups.
        """
        feature = np.repeat(np.arange(self.d_sae), np.diff(self.offsets))
        key = feature * groups + group[self.rows]  # Ascends: features do, and rows within one.
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if len(key) else np.empty(0, np.int64)
        if not len(starts):
            return Scores(self.values, self.rows, self.offsets, groups)
        largest = np.maximum.reduceat(self.values, starts)
        whole = np.diff(np.append(starts, len(key))) == np.bincount(group, minlength=groups)[key[starts] % groups]
        largest = np.where(whole, largest, np.maximum(largest, 0))  # A row that did not fire scores zero.
        kept = largest != 0
        return Scores.collect(
            largest[kept], key[starts][kept] // groups, key[starts][kept] % groups, groups, self.d_sae
        )


@dataclass(frozen=True)
class Standings:
    """Where scores stand in their group: twice the rows that score lower, and once those that score the same.

    No label comes in: one sort serves all the labels that are tried on a group.

    Args:
        group: Group of each score, ascending.
        of_scores: The standing of each.
        of_zero: The standing of a zero in each group.
    """

    group: NDArray[np.int64]
    of_scores: NDArray[np.int64]
    of_zero: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float32], group: NDArray[np.int64], n: NDArray[np.int64]) -> "Standings":
        """Sort scores.

        Args:
            values: Scores that are not zero.
            group: Group of each, ascending.
            n: Rows of each group, scores of zero included.
        """
        held = np.bincount(group, minlength=len(n))
        negative = np.bincount(group[values < 0], minlength=len(n))
        zeros = n - held
        bits = values.view(np.uint32)
        rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        key = (group.astype(np.uint64) << np.uint64(32)) | rising
        order = np.argsort(key)
        key = key[order]
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if len(key) else np.empty(0, np.int64)
        same = np.diff(np.append(starts, len(key)))
        run = group[starts]
        lower = starts - (np.cumsum(held) - held)[run]
        lower += np.where(lower < negative[run], 0, zeros[run])
        standing = np.empty(len(key), np.int64)
        standing[order] = np.repeat(2 * lower + same, same)
        return cls(group, standing, 2 * negative + zeros)

    def auroc(
        self, positive: NDArray[np.bool_], positives: NDArray[np.int64], negatives: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Chance that a positive row scores above a negative one, ties counted half; exact, a number for each group.

        Args:
            positive: Whether the row of each score bears the label of its group.
            positives: Rows that bear it in each group, scores of zero included.
            negatives: Rows that do not.

        Returns:
            NaN for a group without positives or without negatives.
        """
        group = self.group[positive]
        total = self.of_zero * (positives - np.bincount(group, minlength=len(positives)))
        np.add.at(total, group, self.of_scores[positive])
        with np.errstate(invalid="ignore", divide="ignore"):
            # P positives among themselves make P^2 of the sum.
            return (total - positives**2) / (2.0 * positives * negatives)
