"""What the items of a chunk are to a model: tokens of a text, a picture of its size, or what a user's collate takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interp.harvest_dataset import Raw
from interp.harvest_policy import Policy
from interp.models.base import Model
from interp.pictures import name_of
from interp.preprocessing import Preprocessing
from interp.types import Inputs, Item

_PATCH = 256  # pixels that count as one position of a forward pass: maps of pooled sites would fill the memory


@dataclass(frozen=True)
class Ready:
    """One item, ready to be put into a batch.

    Args:
        item: What the store keeps of it.
        content: What `collate` takes.
        length: Positions it has; 0 where it gives no row.
        cost: Positions that it counts for in a batch.
        skipped: Why it could not be read, with its file; empty where it could.
    """

    item: Item
    content: Any
    length: int
    cost: int
    skipped: tuple[str, str] | None = None


class Texts:
    """Texts or token ids for a model with a tokenizer."""

    def __init__(self, model: Model, max_length: int) -> None:
        self._model: Any = model
        self._max_length = max_length

    def prepare(self, raws: Sequence[Raw]) -> list[Ready]:
        """Tokens and pieces of each item; an empty one has none."""
        texts = [raw.content for raw in raws if isinstance(raw.content, str) and not raw.is_empty]
        encoded = iter(self._model.tokenize(texts, self._max_length)) if texts else iter(())
        ready = []
        for raw in raws:
            if raw.is_empty:
                tokens, pieces = torch.zeros(0, dtype=torch.long), ()
            elif isinstance(raw.content, str):
                code = next(encoded)
                tokens, pieces = code.tokens.long(), tuple(code.pieces)
            else:
                tokens = raw.content[: self._max_length]
                pieces = tuple(self._model.pieces_of(tokens))
            ready.append(Ready(Item(tokens, pieces, raw.labels), tokens, len(tokens), len(tokens)))
        return ready

    def collate(self, contents: list[Any]) -> Inputs:
        """One padded batch."""
        return self._model.collate(contents)


class Pictures:
    """Images for a model with a `preprocessing`."""

    def __init__(self, model: Any, positions: int, thumbnails: int) -> None:
        self._model = model
        self._preprocessing: Preprocessing = model.preprocessing
        self._positions, self._thumbnails = positions, thumbnails
        h, w = self._preprocessing.size
        self._cost = max(positions, h * w // _PATCH)

    def prepare(self, raws: Sequence[Raw]) -> list[Ready]:
        """Each picture at the model's size; one that cannot be read has no rows."""
        return [self._ready(raw) for raw in raws]

    def _ready(self, raw: Raw) -> Ready:
        try:
            fitted = self._preprocessing.fitted(raw.content)
        except ValueError as error:
            return Ready(Item(labels=raw.labels), None, 0, 0, (name_of(raw.content), str(error)))
        seen = fitted.thumbnail(self._thumbnails) if self._thumbnails else None
        return Ready(Item(labels=raw.labels, image=seen), fitted, self._positions, self._cost)

    def collate(self, contents: list[Any]) -> Inputs:
        """One batch."""
        return self._model.collate(contents)


class Others:
    """Whatever a collate of the user's takes."""

    def __init__(self, collate: Callable[[list[Any]], Inputs], positions: int) -> None:
        self.collate, self._positions = collate, positions

    def prepare(self, raws: Sequence[Raw]) -> list[Ready]:
        """Items as they are."""
        return [Ready(Item(labels=raw.labels), raw.content, self._positions, self._positions) for raw in raws]


def inputs_of(
    model: Model, policy: Policy, collate: Callable[[list[Any]], Inputs] | None, positions: int
) -> Texts | Pictures | Others:
    """The reader of items that fits.

    Raises:
        ValueError: If there is none.
    """
    if collate is not None:
        return Others(collate, positions)
    if policy.images is not None:
        return Pictures(model, positions, policy.images["thumbnails"])
    if not hasattr(model, "tokenize"):
        raise ValueError(
            f"{model.name} takes no text: give collate=, which makes Inputs from a list of items (model.collate, where "
            "it has one)."
        )
    return Texts(model, policy.max_length)


def takes_images(model: Model) -> bool:
    """Whether a model is given pictures."""
    return getattr(model, "preprocessing", None) is not None and not hasattr(model, "tokenize")
