"""The items that examples come from, each read once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary.pieces import Pieces
from analyses.dictionary.tables import labels_json
from interp.types import ActivationStore


class Shown:
    """What a bundle says of the items that its examples come from.

    Args:
        source: The store.
        items: Numbers of the items, ascending.
        pieces: Pieces of each example of the store where they are not the items' own.
    """

    def __init__(
        self, source: ActivationStore, items: NDArray[np.int64], pieces: Sequence[Sequence[str]] | None
    ) -> None:
        # A store on disk reads and decodes an item each time it is asked.
        read = [source.items[number] for number in items.tolist()]
        texts = [item.pieces for item in read] if pieces is None else [pieces[number] for number in items.tolist()]
        self.items = items
        self.pieces = Pieces(texts)
        self.texts = ["".join(text) for text in texts]
        self.labels = [labels_json(item.labels) for item in read]
        self.images = [item.image for item in read]
