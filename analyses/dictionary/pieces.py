"""The pieces of many items as numbers, so that what is asked of all of them needs no Python loop."""

from collections.abc import Iterable, Sequence

import numpy as np


class Pieces:
    """Pieces as places in a vocabulary, item after item, end to end.

    `lengths` and `begin` say where each item's lie in `ids`.

    Args:
        texts: Pieces of each item.
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        parts = [np.array([numbers.setdefault(piece, len(numbers)) for piece in text], np.int32) for text in texts]
        self.vocabulary = list(numbers)
        self.ids = np.concatenate([np.empty(0, np.int32), *parts])
        self.lengths = np.array([len(part) for part in parts], np.int64)
        self.begin = np.cumsum(self.lengths) - self.lengths
