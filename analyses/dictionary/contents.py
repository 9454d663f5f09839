"""What a model was given for the items of a store, found again."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.harvest_dataset import Source
from interp.harvest_inputs import takes_images
from interp.models.base import Model
from interp.preprocessing import Fitted
from interp.types import ActivationStore, Inputs, Item


class Contents:
    """Batches of a store's items, as they were when its rows were read.

    Token ids are in the store, and so are pictures whose thumbnails are as large as the model's input; other items
    come from the dataset again.

    Args:
        model: The model.
        store: The store.
        dataset: What was harvested, where the store does not hold it; its items have the same numbers.
        image: The column that holds the picture.
        collate: Makes a batch from items of the dataset that are neither texts nor pictures.

    Raises:
        ValueError: If `collate` comes without a dataset, or the dataset is no sequence.
    """

    def __init__(
        self,
        model: Model,
        store: ActivationStore,
        *,
        dataset: Any = None,
        image: str = "image",
        collate: Callable[[list[Any]], Inputs] | None = None,
    ) -> None:
        self._model: Any = model
        self._items, self._collate = store.items, collate
        self._source: Source | None = None
        if dataset is not None:
            column = image if collate is None and takes_images(model) else None
            self._source = Source(dataset, text="text", labels=(), whole=collate is not None, image=column)
            if self._source.length is None:
                raise ValueError("dataset is read from its start only, but items are found by number: give a sequence.")
        elif collate is not None:
            raise ValueError("collate is given, but no dataset: give the one that was harvested.")

    def lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of items; 0 where they have none.

        Args:
            numbers: Which items of the store.
        """
        distinct, which = np.unique(numbers, return_inverse=True)
        tokens = [self._items[number].tokens for number in distinct.tolist()]
        return np.array([0 if ids is None else len(ids) for ids in tokens], np.int64)[which]

    def inputs(self, numbers: Sequence[int]) -> Inputs:
        """One batch of items.

        Args:
            numbers: Which items of the store.

        Raises:
            ValueError: If an item is neither in the store nor in a dataset.
        """
        contents = [self._content(number) for number in numbers]
        return self._model.collate(contents) if self._collate is None else self._collate(contents)

    def _content(self, number: int) -> Any:
        if self._source is not None and (self._collate is not None or takes_images(self._model)):
            return next(self._source.read(number)).content
        item = self._items[number]
        if item.tokens is not None and len(item.tokens):
            return item.tokens
        return Fitted(self._picture(item, number))

    def _picture(self, item: Item, number: int) -> Any:
        kept = None if item.image is None else tuple(item.image.shape[:2])
        size = self._model.preprocessing.size if takes_images(self._model) else None
        if kept is None or kept != size:
            has = "nothing" if kept is None else f"a thumbnail of {kept[0]} x {kept[1]}"
            needs = "what it was made from" if size is None else f"a picture of {size[0]} x {size[1]}"
            raise ValueError(
                f"the store keeps {has} of item {number}, but the model is given {needs}: give the dataset that was "
                "harvested"
                + ("" if size is None else f" (dataset=), or harvest again with thumbnails={max(size)}")
                + "."
            )
        return item.image
