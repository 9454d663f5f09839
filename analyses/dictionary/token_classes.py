"""Classes of tokens that can be read off their text, and the labels of a store's rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.types import ActivationStore

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


def possible_labels(store: ActivationStore, keys: Sequence[str], pieces: int, min_count: int) -> list[Label]:
    """The labels that a store's items and tokens bear often enough.

    Args:
        store: The store.
        keys: Keys of the items' labels.
        pieces: How many of the most frequent tokens are labels themselves.
        min_count: Items of an item label, tokens of a frequent token.

    Raises:
        ValueError: If no item has one of the keys.
    """
    labels: list[Label] = []
    for key in keys:
        counts = Counter(item.labels[key] for item in store.items if key in item.labels)
        if not counts:
            known = sorted({name for item in store.items for name in item.labels})
            raise ValueError(f"labels has {key!r}, but no item of the store bears it: choose among {known}.")
        labels += [Label(key, value) for value, count in sorted(counts.items()) if count >= min_count]
    counts = Counter(piece for item in store.items for piece in item.pieces)
    if counts:
        labels += [Label(CLASS_KEY, name) for name in TOKEN_CLASSES]
    frequent = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:pieces]
    return labels + [Label(PIECE_KEY, str(piece)) for piece, count in frequent if count >= min_count]


def item_columns(store: ActivationStore, labels: Sequence[Label]) -> NDArray[np.int32]:
    """Which label each example bears, one row for each key: [keys, examples], -1 for none."""
    keys = sorted({label.key for label in labels if label.of_items})
    number = {(label.key, label.value): i for i, label in enumerate(labels)}
    return np.array(
        [[number.get((key, item.labels.get(key, "")), -1) for item in store.items] for key in keys], np.int32
    ).reshape(len(keys), len(store.items))


def token_columns(
    store: ActivationStore, labels: Sequence[Label], example: NDArray[np.int64], position: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Which label each row bears, one row for each token class and one for its text: [classes + 1, rows], -1 for none.

    Args:
        store: The store.
        labels: All labels.
        example: Example of each row.
        position: Position of each row.
    """
    number = {(label.key, label.value): i for i, label in enumerate(labels)}
    classes = [name for name in TOKEN_CLASSES if (CLASS_KEY, name) in number]
    # A column is a function of the token and the one before: it is worked out once for each such pair.
    seen: dict[tuple[str, str], int] = {}
    pair = np.full(len(example), -1, np.int64)
    read, pieces = -1, ()
    for row, (item, place) in enumerate(zip(example.tolist(), position.tolist(), strict=True)):
        if item != read:  # A store on disk reads and decodes an item each time it is asked.
            read, pieces = item, store.items[item].pieces
        if place < len(pieces):
            pair[row] = seen.setdefault((pieces[place], pieces[place - 1] if place else ""), len(seen))
    table = np.full((len(classes) + 1, len(seen) + 1), -1, np.int32)  # The last column is for rows without a token.
    for (piece, before), column in seen.items():
        table[-1, column] = number.get((PIECE_KEY, piece), -1)
        for line, name in enumerate(classes):
            if TOKEN_CLASSES[name](piece, before):
                table[line, column] = number[CLASS_KEY, name]
    return table[:, pair]
