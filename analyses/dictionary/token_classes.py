"""Classes of tokens that can be read off their text, and the labels of a store's rows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary.pieces import Pieces
from interp.types import Item

CLASS_KEY, PIECE_KEY = "token class", "token"


def _is_continuation(piece: str, before: str) -> bool:
    return piece[:1].isalnum() and before[-1:].isalnum()


# Each takes a token's text and the text of the token before it.
TOKEN_CLASSES = {
    "digit": lambda piece, before: piece.strip().isdigit(),
    "punctuation": lambda piece, before: bool(piece.strip()) and not any(c.isalnum() for c in piece),
    "bracket": lambda piece, before: bool(piece.strip()) and all(c in "()[]{}<>" for c in piece.strip()),
    "capitalised": lambda piece, before: piece.strip()[:1].isupper() and not piece.strip()[1:2].isupper(),
    "upper case": lambda piece, before: len(piece.strip()) > 1 and piece.isupper(),
    "identifier with underscore": lambda piece, before: "_" in piece,
    "subword continuation": _is_continuation,
    "whitespace-led": lambda piece, before: piece[:1].isspace(),
    "line break": lambda piece, before: "\n" in piece,
}


@dataclass(frozen=True)
class Label:
    """A name that holds of some items or of some tokens.

    Args:
        key: A key of the items' labels, `CLASS_KEY` or `PIECE_KEY`.
        value: The value that key takes.
    """

    key: str
    value: str

    @property
    def of_items(self) -> bool:
        """Whether it is said of whole items."""
        return self.key not in (CLASS_KEY, PIECE_KEY)

    def __str__(self) -> str:
        return f"{self.key}: {self.value!r}" if self.key == PIECE_KEY else f"{self.key}: {self.value}"


class Said:
    """What the items of a store say: their tokens and some of their labels. Each item is read once.

    Args:
        items: The items; a store on disk reads and decodes one each time it is asked.
        keys: Keys of the labels that are wanted.
    """

    def __init__(self, items: Sequence[Item], keys: Iterable[str]) -> None:
        self.labels: dict[str, list[str | None]] = {key: [] for key in keys}
        self.known: set[str] = set()
        self.pieces = Pieces(self._read(item) for item in items)

    def _read(self, item: Item) -> Sequence[str]:
        self.known.update(item.labels)
        for key, values in self.labels.items():
            values.append(item.labels.get(key))
        return item.pieces


def possible_labels(said: Said, pieces: int, min_count: int) -> list[Label]:
    """The labels that a store's items and tokens bear often enough.

    Args:
        said: What the items say.
        pieces: How many of the most frequent tokens are labels themselves.
        min_count: Items of an item label, tokens of a frequent token.

    Raises:
        ValueError: If no item has one of the keys.
    """
    labels: list[Label] = []
    for key, values in said.labels.items():
        if key not in said.known:
            known = sorted(said.known)
            raise ValueError(f"labels has {key!r}, but no item of the store bears it: choose among {known}.")
        counts = Counter(value for value in values if value is not None)
        labels += [Label(key, value) for value, count in sorted(counts.items()) if count >= min_count]
    ids, vocabulary = said.pieces.ids, said.pieces.vocabulary
    if vocabulary:
        labels += [Label(CLASS_KEY, name) for name in TOKEN_CLASSES]
    counted = zip(vocabulary, np.bincount(ids).tolist(), strict=True)
    frequent = sorted(counted, key=lambda pair: (-pair[1], pair[0]))[:pieces]
    return labels + [Label(PIECE_KEY, str(piece)) for piece, count in frequent if count >= min_count]


def item_columns(said: Said, labels: Sequence[Label]) -> NDArray[np.int32]:
    """Which label each example bears, one row for each key: [keys, examples], -1 for none."""
    number: dict[tuple[str, str | None], int] = {(label.key, label.value): i for i, label in enumerate(labels)}
    columns = [[number.get((key, value), -1) for value in values] for key, values in sorted(said.labels.items())]
    return np.array(columns, np.int32).reshape(len(columns), len(said.pieces.lengths))


def token_columns(
    said: Said, labels: Sequence[Label], example: NDArray[np.int64], position: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Which label each row bears, one row for each token class and one for its text: [classes + 1, rows], -1 for none.

    Args:
        said: What the items say.
        labels: All labels.
        example: Example of each row.
        position: Position of each row.
    """
    number = {(label.key, label.value): i for i, label in enumerate(labels)}
    classes = [name for name in TOKEN_CLASSES if (CLASS_KEY, name) in number]
    pieces = said.pieces
    vocabulary = [*pieces.vocabulary, ""]  # The last one stands before the first token.
    rows = np.flatnonzero(position < pieces.lengths[example])
    place = pieces.begin[example[rows]] + position[rows]
    before = np.where(position[rows] > 0, pieces.ids[place - 1], len(vocabulary) - 1)
    # A column is a function of the token and the one before: it is worked out once for each such pair.
    codes = pieces.ids[place].astype(np.int64) * len(vocabulary) + before
    pairs, pair = np.unique(codes, return_inverse=True)
    table = np.full((len(classes) + 1, len(pairs)), -1, np.int32)
    for column, found in enumerate(pairs.tolist()):
        piece, earlier = (vocabulary[i] for i in divmod(found, len(vocabulary)))
        table[-1, column] = number.get((PIECE_KEY, piece), -1)
        for line, name in enumerate(classes):
            if TOKEN_CLASSES[name](piece, earlier):
                table[line, column] = number[CLASS_KEY, name]
    columns = np.full((len(table), len(example)), -1, np.int32)
    columns[:, rows] = table[:, pair]
    return columns
